"""Exception handlers, which render every error as a response in the format of its API."""

from collections.abc import Mapping

import orjson
from fastapi import FastAPI, Request, Response
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from proctor.budget import BudgetError
from proctor.server.api.health import is_probe
from proctor.server.errors import (
    CLIENT_GONE,
    ApiError,
    EngineUnavailable,
    MethodNotAllowed,
    NotFound,
    SessionLimitExceeded,
    UnsupportedRequest,
    as_api_error,
)
from proctor.server.schemas.anthropic.response import to_messages_error
from proctor.server.schemas.responses import to_error
from proctor.server.telemetry.metrics import Metrics

MESSAGES_PATH = "/v1/messages"
"""The path of Anthropic's API, and the beginning of its other paths."""

MAX_PATH_LENGTH = 128
"""The maximum number of characters of a path in an error message."""


def add_error_handlers(app: FastAPI, metrics: Metrics) -> None:
    """Add the handlers of all errors to the application."""

    async def error_response(request: Request, error: Exception) -> Response:
        api_error = as_api_error(error)
        if not is_probe(request):
            metrics.rejected.labels(api_error.reason).inc()
        if isinstance(api_error, SessionLimitExceeded):
            metrics.session_refused.labels(api_error.limit).inc()
        return Response(
            orjson.dumps(_to_body(api_error, request.scope["path"])),
            api_error.status,
            api_error.headers,
            media_type="application/json",
        )

    async def method_not_allowed(request: Request, _: Exception) -> Response:
        methods = ", ".join(_allowed_methods(app, request.scope))
        headers = {"allow": methods}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
        message = f"Method Not Allowed: {_path(request)} supports {methods}, not {request.method}."
        return await error_response(request, MethodNotAllowed(message, headers=headers))

    async def not_found(request: Request, _: Exception) -> Response:
        return await error_response(request, NotFound(f"Not Found: {_path(request)}"))

    async def client_disconnected(request: Request, error: Exception) -> Response:
        return Response(status_code=CLIENT_GONE)

    for kind in (ApiError, BudgetError, EngineUnavailable, UnsupportedRequest):
        app.add_exception_handler(kind, error_response)
    # Inside the other middleware, unlike Starlette's own, whose responses would have no CORS
    # headers and would be missing from the metrics of statuses.
    app.add_middleware(ServerErrorMiddleware, handler=error_response)
    app.add_exception_handler(NotFound.status, not_found)
    app.add_exception_handler(MethodNotAllowed.status, method_not_allowed)
    app.add_exception_handler(ClientDisconnect, client_disconnected)


def _to_body(error: ApiError, path: str) -> Mapping[str, object]:
    """Return the body of an error, in the format of the API that the path belongs to."""
    if path.startswith(MESSAGES_PATH):
        return to_messages_error(error)
    return to_error(error)


def _path(request: Request) -> str:
    """Return the shortened path, without the host, which is whatever the client sent."""
    path: str = request.scope["path"]
    return path[:MAX_PATH_LENGTH]


def _allowed_methods(app: FastAPI, scope: Scope) -> list[str]:
    routes = [route for route in app.routes if route.matches(scope)[0] is not Match.NONE]
    methods = {method for route in routes for method in getattr(route, "methods", None) or ("GET",)}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)
