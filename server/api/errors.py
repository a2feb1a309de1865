"""Error responses."""

import orjson
from fastapi import FastAPI, Request, Response
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from proctor.budget import BudgetError
from proctor.server.errors import (
    CLIENT_GONE,
    ApiError,
    EngineUnavailable,
    MethodNotAllowed,
    NotFound,
    UnsupportedRequest,
    as_api_error,
)
from proctor.server.telemetry.metrics import Metrics

MAX_TOLD = 128


def add_error_handlers(app: FastAPI, metrics: Metrics) -> None:
    """Answer every error in OpenAI's shape, with its status and headers."""

    async def refuse(request: Request, error: Exception) -> Response:
        told = as_api_error(error)
        metrics.rejected.labels(told.reason).inc()
        return Response(
            orjson.dumps(told.to_json()),
            told.status,
            told.headers,
            media_type="application/json",
        )

    async def no_method(request: Request, _: Exception) -> Response:
        headers = {"allow": ", ".join(_methods_at(app, request.scope))}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
        message = f"{_path(request)} does not take {request.method}"
        return await refuse(request, MethodNotAllowed(message, headers=headers))

    async def no_path(request: Request, _: Exception) -> Response:
        return await refuse(request, NotFound(f"there is nothing at {_path(request)}"))

    async def gone(_: Request, error: Exception) -> Response:
        return Response(status_code=CLIENT_GONE)

    for known in (ApiError, BudgetError, EngineUnavailable, UnsupportedRequest):
        app.add_exception_handler(known, refuse)
    # Starlette's own stands around all other middleware: its answer would have no headers of CORS,
    # and count under no status.
    app.add_middleware(ServerErrorMiddleware, handler=refuse)
    app.add_exception_handler(NotFound.status, no_path)
    app.add_exception_handler(MethodNotAllowed.status, no_method)
    app.add_exception_handler(ClientDisconnect, gone)


def _path(request: Request) -> str:
    """The path as it came; the request's URL would take the client's word for the host."""
    path: str = request.scope["path"]
    return path[:MAX_TOLD]


def _methods_at(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that a path takes."""
    routes = [route for route in app.routes if route.matches(scope)[0] is not Match.NONE]
    methods = {method for route in routes for method in getattr(route, "methods", None) or ("GET",)}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)
