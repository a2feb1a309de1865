"""The gateway as an ASGI application."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from uuid import uuid4

import orjson
from fastapi import Depends, FastAPI, Request, Response
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from proctor.budget import BudgetError
from proctor.server.accounting.cost import PriceModel
from proctor.server.accounting.estimates import UsageHistory
from proctor.server.accounting.ledger.recorder import LedgerContext
from proctor.server.accounting.ledger.service import open_ledger
from proctor.server.accounting.reservation_store import ReservationStore
from proctor.server.accounting.reservations import Reservations
from proctor.server.api import openapi
from proctor.server.api.chat import ChatEndpoint
from proctor.server.api.completions import CompletionsEndpoint
from proctor.server.api.feedback import FeedbackEndpoint
from proctor.server.api.idempotency import open_idempotency_cache
from proctor.server.api.metrics import MetricsEndpoint
from proctor.server.api.models import ModelsEndpoint
from proctor.server.api.route import RouteEndpoint
from proctor.server.api.tiers import TiersEndpoint
from proctor.server.api.tokenize import TokenizeEndpoint
from proctor.server.api.ui import add_pages
from proctor.server.auth.api_key import Key
from proctor.server.auth.authenticator import Authenticator
from proctor.server.auth.store import KeyStore
from proctor.server.config.settings import Settings
from proctor.server.engines.processes.stall import StallTimeouts
from proctor.server.engines.supervisor import EngineFactory, EngineSupervisor
from proctor.server.errors import (
    ApiError,
    EngineUnavailable,
    MethodNotAllowed,
    NotFound,
    UnsupportedRequest,
    as_api_error,
)
from proctor.server.fair_queue import FairQueue
from proctor.server.generation.admission import AdmissionController
from proctor.server.generation.routing import Router
from proctor.server.generation.runner import TaskPool
from proctor.server.schemas.responses import Health, Ready, ServerLoad, Version, as_json
from proctor.server.storage.database import open_database
from proctor.server.telemetry.metrics import Metrics
from proctor.server.telemetry.middleware import MetricsMiddleware
from proctor.server.telemetry.request_observer import CLIENT_GONE
from proctor.server.telemetry.tracing import Tracing, open_tracing
from proctor.server.transport.bodies import BodyReader
from proctor.server.transport.cors import CorsPolicy
from proctor.server.transport.middleware import HeadMiddleware, RequestIdMiddleware

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"
ROUTE_PATH = "/v1/route"
MAX_TOLD = 128


def create_app(settings: Settings, load: EngineFactory, tracing: Tracing | None = None) -> FastAPI:
    """Make the application; its engine begins to load when it is started.

    Args:
        settings: everything that an operator can set.
        load: makes the engine; may block, and runs in a thread.
        tracing: makes the traces; None is what the settings ask for.

    Raises:
        BadSettings: if the classifier that they name is not installed, or the
            ledger cannot be where they say.
    """
    limits = settings.limits
    metrics, tracing = Metrics(settings), tracing or open_tracing(settings.tracing)
    host = EngineSupervisor(
        metrics.counting(load), StallTimeouts(limits.stall_seconds, limits.busy_stall_seconds)
    )
    bodies = BodyReader(limits.max_body_bytes)
    line = FairQueue(limits.max_running, limits.max_waiting)
    task_pool = TaskPool(line)
    admission_controller = AdmissionController(settings, Router.load(settings.router))
    origins = CorsPolicy(settings.cors)
    gateway = uuid4().hex
    ledger = open_ledger(settings.ledger, gateway, metrics.settled)
    # Apart from the ledger's own: requests that wait for the database must not keep the lease or
    # the rows from it.
    url = settings.ledger.url.get_secret_value()
    database = open_database(url) if url else None
    keys = None if database is None else KeyStore(database)
    guard = Authenticator([*map(Key.listed, settings.keys)], keys, asks=settings.asks_for_keys)
    price_model = PriceModel(settings)
    reservation_store = None if database is None else ReservationStore(database)
    reservations = Reservations(reservation_store, price_model, gateway)
    replays = open_idempotency_cache(database, settings.ledger, gateway)
    metrics.engine_up.set_function(lambda: host.up)
    metrics.running.set_function(lambda: line.running)
    metrics.waiting.set_function(lambda: line.waiting)
    metrics.ledger_waiting.set_function(lambda: 0 if ledger is None else ledger.waiting)
    ledger_context = LedgerContext(price_model, UsageHistory(), ledger, settings.ledger.texts)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        host.start()
        async with ledger or nullcontext():
            yield
            await task_pool.aclose()
            await replays.aclose()
            await reservations.aclose()
        if database is not None:
            await database.dispose()
        await host.aclose()
        await tracing.aclose()

    app = FastAPI(
        title="Proctor",
        version=_version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(origins.check), Depends(guard.check)],
    )
    app.state.host = host
    app.state.task_pool = task_pool
    app.openapi = openapi.describe(app, settings, host)  # type: ignore[method-assign]
    _add_errors(app, metrics)
    metered = {CHAT_PATH, COMPLETIONS_PATH}
    app.add_middleware(
        MetricsMiddleware,
        metrics=metrics,
        ledger_context=ledger_context,
        tracing=tracing,
        paths=metered,
    )
    app.add_middleware(HeadMiddleware)
    origins.add_to(app)
    app.add_middleware(RequestIdMiddleware)
    chat = ChatEndpoint(
        settings, host, admission_controller, bodies, task_pool, reservations, replays
    )
    dry_run = RouteEndpoint(
        settings, bodies, host, admission_controller, price_model, ledger_context.recent
    )
    app.post(CHAT_PATH, **openapi.CHAT.to_route())(chat.__call__)
    completions = CompletionsEndpoint(
        settings, host, admission_controller, bodies, task_pool, reservations, replays
    )
    app.post(COMPLETIONS_PATH, **openapi.COMPLETIONS.to_route())(completions.__call__)
    app.post(ROUTE_PATH, **openapi.ROUTE.to_route())(dry_run.__call__)
    tokenization = TokenizeEndpoint(settings, host, bodies)
    app.post("/tokenize", **openapi.TOKENIZE.to_route())(tokenization.tokenize)
    app.post("/detokenize", **openapi.DETOKENIZE.to_route())(tokenization.detokenize)
    feedback = FeedbackEndpoint(bodies, ledger)
    app.post("/v1/feedback", **openapi.FEEDBACK.to_route())(feedback.__call__)
    models = ModelsEndpoint(host, settings.aliases)
    app.get("/v1/models", **openapi.LIST_MODELS.to_route())(models.list_models)
    app.get("/v1/models/{name:path}", **openapi.GET_MODEL.to_route())(models.get_model)
    app.get("/v1/tiers", **openapi.LIST_TIERS.to_route())(TiersEndpoint(settings).list_tiers)
    app.get("/tokenizer_info", **openapi.TOKENIZER_INFO.to_route())(tokenization.info)
    _add_routes(app, host, metrics)
    app.state.exposition = exposition = MetricsEndpoint(metrics.registry)
    if settings.auth.admin_port is None:
        app.get("/metrics", **openapi.METRICS.to_route())(exposition.__call__)
    add_pages(app, settings)
    return app


def _add_routes(app: FastAPI, host: EngineSupervisor, metrics: Metrics) -> None:

    @app.get("/health", **openapi.HEALTH.to_route())
    async def health() -> Response:
        """Whether the process runs."""
        return as_json(Health(status="ok"))

    @app.get("/ready", **openapi.READY.to_route())
    async def ready() -> Response:
        """Whether the engine can answer."""
        await host.ready()
        return as_json(Ready(status="ready"))

    @app.get("/version", **openapi.VERSION.to_route())
    async def version() -> Response:
        """Which server this is."""
        return as_json(Version(version=app.version))

    @app.get("/load", **openapi.LOAD.to_route())
    async def load() -> Response:
        """How busy it is."""
        return as_json(ServerLoad(server_load=metrics.load))


def _add_errors(app: FastAPI, metrics: Metrics) -> None:
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
        headers = {"allow": ", ".join(methods_at(app, request.scope))}
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


def methods_at(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that a path takes."""
    routes = [route for route in app.routes if route.matches(scope)[0] is not Match.NONE]
    methods = {method for route in routes for method in getattr(route, "methods", None) or ("GET",)}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def _version() -> str:
    try:
        return version("proctor")
    except PackageNotFoundError:
        return "0"
