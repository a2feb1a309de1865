"""The base of the generation endpoints: from the body of a request to its response."""

import string
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import quote

from fastapi import Request, Response

from proctor.server.accounting.reservations import Reservation, Reservations
from proctor.server.accounting.sessions import SessionAdmission, Sessions
from proctor.server.api.bodies import BodyReader
from proctor.server.api.generation.idempotency import IdempotencyCache, digest_of
from proctor.server.api.generation.responder import Responder, respond, with_deadline
from proctor.server.auth.api_key import Key
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine
from proctor.server.engines.served_models import ServedModels
from proctor.server.generation.base import Admission, AdmittedRequest
from proctor.server.generation.context import RequestContext
from proctor.server.generation.parallel.scorers import BoundedScorer
from proctor.server.generation.task_pools import TaskPools
from proctor.server.renderers.base import Envelope, ResponseRenderer
from proctor.server.schemas.generation import Generation
from proctor.server.sessions.limits import Allowance, Session
from proctor.server.sessions.names import read_session
from proctor.server.telemetry.request_monitor import RequestMonitor

R = TypeVar("R", bound=Generation)

MODEL_HEADER = "x-model"
"""The name of the model that serves a request; characters outside ASCII are percent-encoded."""


class GenerationApi(ABC, Generic[R]):
    """The parts of a generation API that differ between endpoints: requests and responses.

    Attributes:
        id_prefix: the prefix of the ids of its responses.
        operation: the operation in traces, after OpenTelemetry's `gen_ai.operation.name`.
    """

    id_prefix: ClassVar[str]
    operation: ClassVar[str]

    @abstractmethod
    def parse(self, body: bytes) -> R:
        """Parse a request.

        Raises:
            BadRequest: if it is invalid; `param` names the field.
        """

    @abstractmethod
    def admit(
        self, request: R, engine: Engine, name: str, key: Key | None, allowance: Allowance
    ) -> Coroutine[Any, Any, Admission]:
        """Check a request against the model and the limits, and create its jobs.

        Args:
            request: the request.
            engine: the engine of the model that it names.
            name: a request id, unique during the lifetime of this engine.
            key: the API key, or None.
            allowance: what the request may use of the limits of its session.

        Raises:
            ApiError: if it cannot be served.
            BudgetError: if its budget cannot be enforced.
        """

    @abstractmethod
    def renderer(self, request: R, engine: Engine, envelope: Envelope) -> ResponseRenderer:
        """Return the renderer of the response to an admitted request."""


@dataclass(frozen=True, slots=True)
class Services:
    """The services that all generation endpoints use.

    Attributes:
        settings: the settings of the server.
        models: the models, and their engines.
        body_reader: reads request bodies.
        task_pools: run the choices.
        reservations: reserves the worst case of each request within the limits of its key.
        sessions: admits requests within the limits of their sessions.
        idempotency_cache: replays the responses to repeated requests.
        scorer: scores the answers of parallel chains, or None without one.
    """

    settings: Settings
    models: ServedModels
    body_reader: BodyReader
    task_pools: TaskPools
    reservations: Reservations
    sessions: Sessions
    idempotency_cache: IdempotencyCache
    scorer: BoundedScorer | None = None


class GenerationEndpoint(Generic[R]):
    """A generation endpoint."""

    def __init__(self, api: GenerationApi[R], services: Services) -> None:
        self._api = api
        self._services = services

    async def __call__(self, request: Request) -> Response:
        """Respond to a request.

        Raises:
            ApiError: if the request is rejected.
            BudgetError: if its budget cannot be enforced.
            EngineUnavailable: if the engine dies before the response begins.
        """
        services = self._services
        context = RequestContext.of(request, services.settings.limits)
        services.task_pools.check()
        body = await services.body_reader.read(request)
        parsed, digest = self._api.parse(body), digest_of(body)
        del body  # frees its memory while the response is generated
        names = parsed.session_names
        context = context.in_session(read_session(request.headers, parsed.session, names))
        engine = await services.models.ready(parsed.model)
        return await services.idempotency_cache.get_or_run(
            request, digest, context, lambda: self._respond(request, parsed, engine, context)
        )

    async def _respond(
        self, request: Request, parsed: R, engine: Engine, context: RequestContext
    ) -> Response:
        services = self._services
        monitor: RequestMonitor = request.state.monitor
        completion_id = f"{self._api.id_prefix}{uuid.uuid4().hex}"
        session = services.sessions.open(context.session, context.key)
        admission, reservation, session_headers = await self._admit(
            request, parsed, engine, context, completion_id, session
        )
        engine = admission.engine
        context = context.limited_to(admission.max_seconds)
        monitor.reserve(reservation)
        monitor.admitted(
            AdmittedRequest(
                completion_id,
                self._api.operation,
                engine.model.name,
                parsed.model,
                parsed,
                bool(parsed.stream),
                admission,
                context.name,
                None if session is None else session.id,
            )
        )
        envelope = Envelope(
            completion_id, int(time.time()), engine.model.name, admission, monitor.request_cost
        )
        responder = Responder(
            parsed,
            admission,
            engine,
            self._api.renderer(parsed, engine, envelope),
            monitor,
            services.task_pools.of(engine.model.name),
            context,
            {**reservation.rate_limit_headers, **session_headers, **self._model_header(engine)},
            services.scorer,
        )
        return await self._send(request, responder)

    def _model_header(self, engine: Engine) -> dict[str, str]:
        """Return the header with the model that serves a request, if there are several."""
        if not self._services.settings.models:
            return {}
        return {MODEL_HEADER: quote(engine.model.name, safe=string.printable)}

    async def _send(self, request: Request, responder: Responder) -> Response:
        """Return the response to an admitted request."""
        return await respond(request, responder, self._services.settings)

    async def _admit(
        self,
        request: Request,
        parsed: R,
        engine: Engine,
        context: RequestContext,
        completion_id: str,
        session: Session | None,
    ) -> SessionAdmission:
        services, key = self._services, context.key
        monitor: RequestMonitor = request.state.monitor

        async def admit(allowance: Allowance) -> Admission:
            admitting = self._api.admit(parsed, engine, completion_id, key, allowance)
            admission = await with_deadline(request, context, admitting)
            services.task_pools.of(admission.engine.model.name).check()
            return admission

        async def reserve(admission: Admission, session: Session | None) -> Reservation:
            seconds = min(context.seconds, admission.max_seconds)
            return await services.reservations.reserve(
                key, completion_id, admission, seconds, monitor.received_at, session
            )

        return await services.sessions.admit(session, admit, reserve)
