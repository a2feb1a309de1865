"""What the endpoints that generate share: from a request's body to its response."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from fastapi import Request, Response

from proctor.server.accounting.reservations import Reservations
from proctor.server.api.generation.idempotency import IdempotencyCache, digest_of
from proctor.server.api.generation.responder import Responder, in_time, respond
from proctor.server.auth.api_key import Key
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine
from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.generation.base import Admission, AdmittedRequest
from proctor.server.generation.context import RequestContext
from proctor.server.generation.runner import TaskPool
from proctor.server.renderers.base import Envelope, ResponseRenderer
from proctor.server.schemas.generation import Generation
from proctor.server.telemetry.request_monitor import RequestMonitor
from proctor.server.transport.bodies import BodyReader

R = TypeVar("R", bound=Generation)


class GenerationApi(ABC, Generic[R]):
    """What one API that generates has of its own: its requests and its responses.

    Attributes:
        id_prefix: how the ids of its responses begin.
        operation: its name in traces, after OpenTelemetry's `gen_ai.operation.name`.
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
        self, request: R, engine: Engine, name: str, key: Key | None
    ) -> Coroutine[Any, Any, Admission]:
        """Check a request against the model and the limits, and make its jobs.

        Raises:
            ApiError: if it cannot be served.
            BudgetError: if its budget cannot be enforced.
        """

    @abstractmethod
    def renderer(self, request: R, engine: Engine, envelope: Envelope) -> ResponseRenderer:
        """Return what renders the response to an admitted request."""


@dataclass(frozen=True, slots=True)
class Services:
    """What every endpoint that generates uses.

    Attributes:
        settings: the server's.
        supervisor: has the engine.
        body_reader: reads requests' bodies.
        task_pool: runs choices.
        reservations: reserves what requests may use of their keys' limits.
        idempotency_cache: replays the response to a request that is sent again.
    """

    settings: Settings
    supervisor: EngineSupervisor
    body_reader: BodyReader
    task_pool: TaskPool
    reservations: Reservations
    idempotency_cache: IdempotencyCache


class GenerationEndpoint(Generic[R]):
    """An endpoint that generates."""

    def __init__(self, api: GenerationApi[R], services: Services) -> None:
        self._api = api
        self._services = services

    async def __call__(self, request: Request) -> Response:
        """Respond to one request.

        Raises:
            ApiError: if it is refused.
            BudgetError: if its budget cannot be enforced.
            EngineUnavailable: if the engine dies before the response begins.
        """
        services = self._services
        context = RequestContext.of(request, services.settings.limits)
        services.task_pool.check()
        body = await services.body_reader.read(request)
        parsed, digest = self._api.parse(body), digest_of(body)
        del body  # which the answer, however long it takes, needs no more
        engine = await services.supervisor.ready()
        return await services.idempotency_cache.get_or_run(
            request, digest, context, lambda: self._respond(request, parsed, engine, context)
        )

    async def _respond(
        self, request: Request, parsed: R, engine: Engine, context: RequestContext
    ) -> Response:
        services = self._services
        monitor: RequestMonitor = request.state.monitor
        name = f"{self._api.id_prefix}-{uuid.uuid4().hex}"
        admitting = self._api.admit(parsed, engine, name, context.key)
        admission = await in_time(request, context, admitting)
        reservation = await services.reservations.reserve(
            context.key, name, admission, context.seconds, monitor.received_at
        )
        monitor.reserve(reservation)
        monitor.admitted(
            AdmittedRequest(
                name,
                self._api.operation,
                engine.model.name,
                parsed.model,
                parsed,
                bool(parsed.stream),
                admission,
                context.name,
            )
        )
        envelope = Envelope(
            name, int(time.time()), engine.model.name, admission, monitor.request_cost
        )
        responder = Responder(
            parsed,
            admission,
            engine,
            self._api.renderer(parsed, engine, envelope),
            monitor,
            services.task_pool,
            context,
            reservation.rate_limit_headers,
        )
        return await respond(request, responder, services.settings)
