"""The ASGI application: creates its parts and adds its routes."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from uuid import uuid4

from fastapi import Depends, FastAPI, Response
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor.server.accounting.cost import PriceModel
from proctor.server.accounting.ledger.recorder import LedgerContext
from proctor.server.accounting.ledger.service import Ledger, open_ledger
from proctor.server.accounting.reservation_store import ReservationStore
from proctor.server.accounting.reservations import Reservations
from proctor.server.accounting.sessions import Sessions
from proctor.server.accounting.usage_history import UsageHistory
from proctor.server.admission.controller import AdmissionController
from proctor.server.admission.model_updates import ModelUpdates
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
from proctor.server.api.generation.openai_responses import ResponsesApi, ResponsesEndpoint
from proctor.server.api.generation.response_archive import open_archive
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
from proctor.server.engines.factory import further_engines
from proctor.server.engines.served_models import ServedModels
from proctor.server.engines.supervisor import EngineFactory
from proctor.server.fair_queue import FairQueue
from proctor.server.generation.parallel.scorers import open_scorer
from proctor.server.generation.runner import TaskPool
from proctor.server.generation.task_pools import TaskPools
from proctor.server.sessions.report import SessionReader
from proctor.server.sessions.store import SessionStore
from proctor.server.storage.database import open_database
from proctor.server.telemetry.metrics import Metrics
from proctor.server.telemetry.middleware import MetricsMiddleware
from proctor.server.telemetry.tracing import Tracing, open_tracing
from proctor.server.transport.cors import CorsPolicy
from proctor.server.transport.middleware import BodyMiddleware, HeadMiddleware, RequestIdMiddleware
from proctor.server.turns.history import RecordVerifier
from proctor.server.turns.secret_source import open_secrets

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"
RESPONSES_PATH = "/v1/responses"

Endpoint = Callable[..., Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the application that several of its routes or middleware share.

    Attributes:
        settings: the settings of the server.
        metrics: the metrics of the server.
        tracing: creates the traces.
        database: connects to the database of the ledger, or None without a ledger.
        ledger: the ledger, or None.
        ledger_context: what the rows of the ledger are made with.
        services: what the endpoints that generate share.
        admission: admits requests.
        model_updates: updates the router's outcome model, or None.
        authenticator: authenticates requests.
        background: generates responses in the background.
    """

    settings: Settings
    metrics: Metrics
    tracing: Tracing
    database: AsyncEngine | None
    ledger: Ledger | None
    ledger_context: LedgerContext
    services: Services
    admission: AdmissionController
    model_updates: ModelUpdates | None
    authenticator: Authenticator
    background: BackgroundResponses

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Start to load the engines; at the end, close everything that is open."""
        services = self.services
        services.models.start()
        updating = nullcontext() if self.model_updates is None else self.model_updates.running()
        async with self.metrics.publishing(), self.ledger or nullcontext(), updating:
            yield
            await services.task_pools.aclose()
            await self.background.aclose()
            await services.idempotency_cache.aclose()
            await services.reservations.aclose()
        if self.database is not None:
            await self.database.dispose()
        await services.models.aclose()
        await self.tracing.aclose()


def create_app(
    settings: Settings,
    engine_factory: EngineFactory,
    tracing: Tracing | None = None,
    further: Mapping[str, EngineFactory] | None = None,
) -> FastAPI:
    """Create the application, which starts to load its engines when it is started.

    Args:
        settings: the settings of the server.
        engine_factory: creates the engine; may block, and runs in a thread.
        tracing: creates the traces; None creates it from the settings.
        further: create the engines of `settings.models`, by the names of the models; None creates
            them from the settings.

    Raises:
        ConfigError: if the router's classifier is not installed, or the URL of the ledger
            cannot be used.
    """
    metrics = Metrics(settings)
    models = ServedModels(
        settings,
        metrics.count_starts(engine_factory),
        further_engines(settings) if further is None else further,
    )
    parts = _create_parts(settings, metrics, models, tracing or open_tracing(settings.tracing))
    cors, supervisor = CorsPolicy(settings.cors), models.default
    app = FastAPI(
        title="Proctor",
        version=_version(),
        lifespan=lambda _: parts.running(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(cors.check), Depends(require_declaration)],
    )
    app.state.supervisor = supervisor
    app.state.models = models
    app.state.task_pools = parts.services.task_pools
    app.state.metrics_endpoint = MetricsEndpoint(parts.metrics)
    app.openapi = openapi.custom_openapi(app, settings, supervisor)  # type: ignore[method-assign]
    add_error_handlers(app, parts.metrics)
    app.add_middleware(
        MetricsMiddleware,
        metrics=parts.metrics,
        ledger_context=parts.ledger_context,
        tracing=parts.tracing,
        paths={CHAT_PATH, COMPLETIONS_PATH, MESSAGES_PATH, RESPONSES_PATH},
    )
    app.add_middleware(HeadMiddleware)
    cors.add_to(app)
    app.add_middleware(RequestIdMiddleware)
    app.add_middleware(BodyMiddleware)
    _add_generation_routes(app, parts)
    _add_other_routes(app, parts)
    add_pages(app, settings, parts.authenticator)
    return app


def _create_parts(
    settings: Settings, metrics: Metrics, models: ServedModels, tracing: Tracing
) -> Parts:
    limits, gateway = settings.limits, uuid4().hex
    queue, *further_queues = queues = [
        FairQueue(limits.max_running, limits.max_waiting) for _ in (None, *models.further)
    ]
    further_pools = zip(models.further, map(TaskPool, further_queues), strict=True)
    ledger = open_ledger(settings.ledger, gateway, metrics.count_row)
    # Separate from the ledger's own connections, so that requests that wait for the database do not
    # delay rows and the renewal of the lease.
    url = settings.ledger.url.get_secret_value()
    database = open_database(url) if url else None
    further_prices = {model.name: model.prices for model in settings.models}
    price_model = PriceModel(settings.prices, settings.compute, further=further_prices)
    reservations = Reservations(
        None if database is None else ReservationStore(database), price_model, gateway
    )
    session_store = None if database is None else SessionStore(database)
    router = Router.load(settings.router)
    record_verifier = RecordVerifier(open_secrets(settings.auth.record_secrets, database))
    metrics.watch(metrics.engine_up, lambda: models.default.up)
    for name, supervisor in models.further.items():
        metrics.watch(metrics.model_up.labels(name), partial(getattr, supervisor, "up"))
    metrics.watch(metrics.running, lambda: sum(queue.running for queue in queues))
    metrics.watch(metrics.waiting, lambda: sum(queue.waiting for queue in queues))
    metrics.watch(metrics.ledger_waiting, lambda: 0 if ledger is None else ledger.waiting)
    return Parts(
        settings,
        metrics,
        tracing,
        database,
        ledger,
        LedgerContext(price_model, UsageHistory(), ledger, settings.ledger.texts),
        Services(
            settings,
            models,
            BodyReader(limits.max_body_bytes),
            TaskPools(TaskPool(queue), dict(further_pools)),
            reservations,
            Sessions(settings, session_store, reservations),
            open_idempotency_cache(database, settings.ledger, gateway),
            open_scorer(settings.answer_scorer),
        ),
        AdmissionController(settings, router, record_verifier, models.further),
        ModelUpdates.of(settings, router),
        Authenticator(
            [*map(Key.from_settings, settings.keys)],
            None if database is None else KeyStore(database),
            required=settings.asks_for_keys,
        ),
        BackgroundResponses(open_archive(database, settings.ledger, gateway)),
    )


def _adder(app: FastAPI, parts: Parts) -> Callable[[str, str, Operation, Endpoint], None]:
    """Return a function that adds a route: its method, path, operation and endpoint."""

    def add(method: str, path: str, operation: Operation, endpoint: Endpoint) -> None:
        route = operation.to_route(parts.authenticator)
        app.add_api_route(path, endpoint, methods=[method], **route)

    return add


def _add_generation_routes(app: FastAPI, parts: Parts) -> None:
    """Add the routes of the APIs that generate, and of what they have stored."""
    settings, services, admission = parts.settings, parts.services, parts.admission
    chat = GenerationEndpoint(ChatApi(settings, admission), services)
    completions = GenerationEndpoint(CompletionsApi(admission), services)
    messages = GenerationEndpoint(MessagesApi(admission), services)
    responses = ResponsesEndpoint(ResponsesApi(settings, admission), services, parts.background)
    stored_responses = StoredResponsesEndpoints(parts.background.archive, settings.limits)
    stored_path = f"{RESPONSES_PATH}/{{response_id}}"
    add = _adder(app, parts)
    add("POST", CHAT_PATH, openapi.CHAT, chat.__call__)
    add("POST", COMPLETIONS_PATH, openapi.COMPLETIONS, completions.__call__)
    add("POST", MESSAGES_PATH, openapi.MESSAGES, messages.__call__)
    add("POST", RESPONSES_PATH, openapi.RESPONSES, responses.__call__)
    add("GET", stored_path, openapi.GET_RESPONSE, stored_responses.retrieve)
    add("DELETE", stored_path, openapi.DELETE_RESPONSE, stored_responses.delete)
    add("POST", f"{stored_path}/cancel", openapi.CANCEL_RESPONSE, stored_responses.cancel)
    add("GET", f"{stored_path}/input_items", openapi.RESPONSE_ITEMS, stored_responses.list_items)


def _add_other_routes(app: FastAPI, parts: Parts) -> None:
    settings, services, database = parts.settings, parts.services, parts.database
    models, body_reader = services.models, services.body_reader
    context = parts.ledger_context
    route = RouteEndpoint(
        settings,
        body_reader,
        models,
        parts.admission,
        services.sessions,
        context.price_model,
        context.usage_history,
    )
    feedback = FeedbackEndpoint(body_reader, parts.ledger)
    reader = None if database is None else SessionReader(database)
    sessions = SessionsEndpoint(reader, parts.ledger, settings.currency)
    tokenize = TokenizeEndpoint(settings, models, body_reader)
    names = ModelsEndpoint(settings, models)
    tiers = TiersEndpoint(settings, models)
    health = HealthEndpoints(models, parts.metrics, app.version)
    add = _adder(app, parts)
    add("POST", f"{MESSAGES_PATH}/count_tokens", openapi.COUNT_TOKENS, tokenize.count_tokens)
    add("POST", "/v1/route", openapi.ROUTE, route.__call__)
    add("POST", "/tokenize", openapi.TOKENIZE, tokenize.tokenize)
    add("POST", "/detokenize", openapi.DETOKENIZE, tokenize.detokenize)
    add("POST", "/v1/feedback", openapi.FEEDBACK, feedback.__call__)
    add("GET", "/v1/sessions/{session}", openapi.GET_SESSION, sessions.get_session)
    add("GET", "/v1/models", openapi.LIST_MODELS, names.list_models)
    add("GET", "/v1/models/{name:path}", openapi.GET_MODEL, names.get_model)
    add("GET", "/v1/tiers", openapi.LIST_TIERS, tiers.list_tiers)
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
