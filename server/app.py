"""The ASGI application: creates its parts and adds its routes."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from uuid import uuid4

from fastapi import Depends, FastAPI, Response

from proctor.server.accounting.cost import PriceModel
from proctor.server.accounting.ledger.recorder import LedgerContext
from proctor.server.accounting.ledger.service import Ledger, open_ledger
from proctor.server.accounting.reservation_store import ReservationStore
from proctor.server.accounting.reservations import Reservations
from proctor.server.accounting.sessions import Sessions
from proctor.server.accounting.usage_history import UsageHistory
from proctor.server.admission.controller import AdmissionController
from proctor.server.admission.routing import Router
from proctor.server.api import openapi
from proctor.server.api.bodies import BodyReader
from proctor.server.api.errors import MESSAGES_PATH, add_error_handlers
from proctor.server.api.generation.background import BackgroundResponses
from proctor.server.api.generation.chat import ChatApi
from proctor.server.api.generation.completions import CompletionsApi
from proctor.server.api.generation.endpoint import GenerationEndpoint, Services
from proctor.server.api.generation.idempotency import open_idempotency_cache
from proctor.server.api.generation.messages import MessagesApi
from proctor.server.api.generation.openai_responses import ResponsesApi
from proctor.server.api.generation.response_archive import open_archive
from proctor.server.api.generation.responses_endpoint import ResponsesEndpoint
from proctor.server.api.health import HealthEndpoints
from proctor.server.api.ledger.feedback import FeedbackEndpoint
from proctor.server.api.ledger.sessions import SessionsEndpoint
from proctor.server.api.metrics import MetricsEndpoint
from proctor.server.api.models import ModelsEndpoint
from proctor.server.api.openapi import Operation
from proctor.server.api.route import RouteEndpoint
from proctor.server.api.stored_responses import StoredResponsesEndpoints
from proctor.server.api.tiers import TiersEndpoint
from proctor.server.api.tokenize import TokenizeEndpoint
from proctor.server.api.ui import add_pages
from proctor.server.auth.api_key import Key
from proctor.server.auth.authenticator import Authenticator, require_declaration
from proctor.server.auth.store import KeyStore
from proctor.server.config.settings import Settings
from proctor.server.engines.processes.stall import StallTimeouts
from proctor.server.engines.supervisor import EngineFactory, EngineSupervisor
from proctor.server.fair_queue import FairQueue
from proctor.server.generation.runner import TaskPool
from proctor.server.sessions.report import SessionReader
from proctor.server.sessions.store import SessionStore
from proctor.server.storage.database import open_database
from proctor.server.telemetry.metrics import Metrics
from proctor.server.telemetry.middleware import MetricsMiddleware
from proctor.server.telemetry.tracing import Tracing, open_tracing
from proctor.server.transport.cors import CorsPolicy
from proctor.server.transport.middleware import HeadMiddleware, RequestIdMiddleware
from proctor.server.turns.history import RecordVerifier
from proctor.server.turns.secret_source import open_secrets

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"
RESPONSES_PATH = "/v1/responses"

Endpoint = Callable[..., Awaitable[Response]]


def create_app(
    settings: Settings, engine_factory: EngineFactory, tracing: Tracing | None = None
) -> FastAPI:
    """Create the application, which starts to load the engine when it is started.

    Args:
        settings: the settings of the server.
        engine_factory: creates the engine; may block, and runs in a thread.
        tracing: creates the traces; None creates it from the settings.

    Raises:
        ConfigError: if the router's classifier is not installed, or the URL of the ledger
            cannot be used.
    """
    limits, gateway = settings.limits, uuid4().hex
    metrics, tracing = Metrics(settings), tracing or open_tracing(settings.tracing)
    supervisor = EngineSupervisor(
        metrics.count_starts(engine_factory),
        StallTimeouts(limits.stall_seconds, limits.busy_stall_seconds),
    )
    queue = FairQueue(limits.max_running, limits.max_waiting)
    task_pool = TaskPool(queue)
    ledger = open_ledger(settings.ledger, gateway, metrics.count_row)
    # Separate from the ledger's own connections, so that requests that wait for the database do not
    # delay rows and the renewal of the lease.
    url = settings.ledger.url.get_secret_value()
    database = open_database(url) if url else None
    price_model = PriceModel(settings)
    ledger_context = LedgerContext(price_model, UsageHistory(), ledger, settings.ledger.texts)
    reservations = Reservations(
        None if database is None else ReservationStore(database), price_model, gateway
    )
    session_store = None if database is None else SessionStore(database)
    services = Services(
        settings,
        supervisor,
        BodyReader(limits.max_body_bytes),
        task_pool,
        reservations,
        Sessions(settings, session_store, reservations),
        open_idempotency_cache(database, settings.ledger, gateway),
    )
    background = BackgroundResponses(open_archive(database, settings.ledger, gateway))
    record_verifier = RecordVerifier(open_secrets(settings.auth.record_secrets, database))
    admission = AdmissionController(settings, Router.load(settings.router), record_verifier)
    authenticator = Authenticator(
        [*map(Key.from_settings, settings.keys)],
        None if database is None else KeyStore(database),
        required=settings.asks_for_keys,
    )
    metrics.engine_up.set_function(lambda: supervisor.up)
    metrics.running.set_function(lambda: queue.running)
    metrics.waiting.set_function(lambda: queue.waiting)
    metrics.ledger_waiting.set_function(lambda: 0 if ledger is None else ledger.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        supervisor.start()
        async with ledger or nullcontext():
            yield
            await task_pool.aclose()
            await background.aclose()
            await services.idempotency_cache.aclose()
            await services.reservations.aclose()
        if database is not None:
            await database.dispose()
        await supervisor.aclose()
        await tracing.aclose()

    cors = CorsPolicy(settings.cors)
    app = FastAPI(
        title="Proctor",
        version=_version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(cors.check), Depends(require_declaration)],
    )
    app.state.supervisor = supervisor
    app.state.task_pool = task_pool
    app.state.metrics_endpoint = MetricsEndpoint(metrics.registry)
    app.openapi = openapi.custom_openapi(app, settings, supervisor)  # type: ignore[method-assign]
    add_error_handlers(app, metrics)
    app.add_middleware(
        MetricsMiddleware,
        metrics=metrics,
        ledger_context=ledger_context,
        tracing=tracing,
        paths={CHAT_PATH, COMPLETIONS_PATH, MESSAGES_PATH, RESPONSES_PATH},
    )
    app.add_middleware(HeadMiddleware)
    cors.add_to(app)
    app.add_middleware(RequestIdMiddleware)
    reader = None if database is None else SessionReader(database)
    sessions = SessionsEndpoint(reader, ledger, settings.currency)
    _add_routes(
        app,
        authenticator,
        services,
        admission,
        background,
        metrics,
        ledger_context,
        ledger,
        sessions,
    )
    add_pages(app, settings, authenticator)
    return app


def _add_routes(
    app: FastAPI,
    authenticator: Authenticator,
    services: Services,
    admission: AdmissionController,
    background: BackgroundResponses,
    metrics: Metrics,
    ledger_context: LedgerContext,
    ledger: Ledger | None,
    sessions: SessionsEndpoint,
) -> None:
    settings, supervisor, body_reader = services.settings, services.supervisor, services.body_reader
    chat = GenerationEndpoint(ChatApi(settings, admission), services)
    completions = GenerationEndpoint(CompletionsApi(admission), services)
    messages = GenerationEndpoint(MessagesApi(admission), services)
    responses = ResponsesEndpoint(ResponsesApi(settings, admission), services, background)
    stored_responses = StoredResponsesEndpoints(background.archive, settings.limits)
    route = RouteEndpoint(
        settings,
        body_reader,
        supervisor,
        admission,
        services.sessions,
        ledger_context.price_model,
        ledger_context.usage_history,
    )
    tokenize = TokenizeEndpoint(settings, supervisor, body_reader)
    models = ModelsEndpoint(supervisor, settings.aliases)
    health = HealthEndpoints(supervisor, metrics, app.version)

    def add(method: str, path: str, operation: Operation, endpoint: Endpoint) -> None:
        app.add_api_route(path, endpoint, methods=[method], **operation.to_route(authenticator))

    add("POST", CHAT_PATH, openapi.CHAT, chat.__call__)
    add("POST", COMPLETIONS_PATH, openapi.COMPLETIONS, completions.__call__)
    add("POST", MESSAGES_PATH, openapi.MESSAGES, messages.__call__)
    add("POST", RESPONSES_PATH, openapi.RESPONSES, responses.__call__)
    stored_path = f"{RESPONSES_PATH}/{{response_id}}"
    add("GET", stored_path, openapi.GET_RESPONSE, stored_responses.retrieve)
    add("DELETE", stored_path, openapi.DELETE_RESPONSE, stored_responses.delete)
    add("POST", f"{stored_path}/cancel", openapi.CANCEL_RESPONSE, stored_responses.cancel)
    add("GET", f"{stored_path}/input_items", openapi.RESPONSE_ITEMS, stored_responses.list_items)
    add("POST", f"{MESSAGES_PATH}/count_tokens", openapi.COUNT_TOKENS, tokenize.count_tokens)
    add("POST", "/v1/route", openapi.ROUTE, route.__call__)
    add("POST", "/tokenize", openapi.TOKENIZE, tokenize.tokenize)
    add("POST", "/detokenize", openapi.DETOKENIZE, tokenize.detokenize)
    add(
        "POST",
        "/v1/feedback",
        openapi.FEEDBACK,
        FeedbackEndpoint(body_reader, ledger).__call__,
    )
    add("GET", "/v1/sessions/{session}", openapi.GET_SESSION, sessions.get_session)
    add("GET", "/v1/models", openapi.LIST_MODELS, models.list_models)
    add("GET", "/v1/models/{name:path}", openapi.GET_MODEL, models.get_model)
    add("GET", "/v1/tiers", openapi.LIST_TIERS, TiersEndpoint(settings).list_tiers)
    add("GET", "/tokenizer_info", openapi.TOKENIZER_INFO, tokenize.info)
    add("GET", "/health", openapi.HEALTH, health.health)
    add("GET", "/ready", openapi.READY, health.ready)
    add("GET", "/version", openapi.VERSION, health.version)
    add("GET", "/load", openapi.LOAD, health.load)
    if settings.auth.admin_port is None:
        add("GET", "/metrics", openapi.METRICS, app.state.metrics_endpoint.__call__)


def _version() -> str:
    try:
        return version("proctor")
    except PackageNotFoundError:
        return "0"
