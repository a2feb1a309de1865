"""`POST /v1/completions`: from raw prompts to what follows them."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response

from proctor.server.accounting.reservations import Reservations
from proctor.server.api.idempotency import IdempotencyCache, digest_of
from proctor.server.api.responder import Responder, in_time, respond
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine, Job
from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.generation.admission import AdmissionController
from proctor.server.generation.context import RequestContext
from proctor.server.generation.raw_channels import RawChannelSplitter
from proctor.server.generation.runner import Choice, ChoiceResult, OutputItem, TaskPool
from proctor.server.renderers.completions import CompletionRenderer, CompletionSseEncoder
from proctor.server.schemas.completions import CompletionRequest
from proctor.server.schemas.parsing import parse
from proctor.server.telemetry.request_observer import RequestObserver
from proctor.server.transport.bodies import BodyReader


@dataclass(frozen=True, slots=True)
class CompletionResponder(Responder):
    """One admitted completion of raw prompts."""

    request: CompletionRequest
    completion: CompletionRenderer

    def choice(self, job: Job, index: int) -> Choice:
        """See `Responder`."""
        engine = self.engine
        channels = RawChannelSplitter(engine.codec, engine.model, job, index, self.request)
        return Choice(engine, job, index, channels, counted=self.counted)

    def writer(self) -> CompletionSseEncoder:
        """See `Responder`."""
        return CompletionSseEncoder(self.completion, self.counted)

    def to_json(self, told: Sequence[OutputItem], ends: Sequence[ChoiceResult]) -> dict[str, Any]:
        """See `Responder`."""
        return self.completion.whole(told, ends)


class CompletionsEndpoint:
    """The endpoint."""

    def __init__(
        self,
        settings: Settings,
        host: EngineSupervisor,
        admission_controller: AdmissionController,
        bodies: BodyReader,
        task_pool: TaskPool,
        reservations: Reservations,
        replays: IdempotencyCache,
    ) -> None:
        self._settings = settings
        self._host = host
        self._admission_controller = admission_controller
        self._bodies = bodies
        self._task_pool = task_pool
        self._reservations = reservations
        self._replays = replays

    async def __call__(self, request: Request) -> Response:
        """Complete one request's prompts.

        Raises:
            ApiError: if the request is refused.
            BudgetError: if its budget cannot be enforced.
            EngineUnavailable: if the engine dies before the answer is there.
        """
        context = RequestContext.of(request, self._settings.limits)
        self._task_pool.check()
        body = await self._bodies.read(request)
        asked, digest = parse(body, CompletionRequest), digest_of(body)
        del body  # which the answer, however long it takes, needs no more
        engine = await self._host.ready()
        return await self._replays.get_or_run(
            request, digest, context, lambda: self._answer(request, asked, engine, context)
        )

    async def _answer(
        self, request: Request, asked: CompletionRequest, engine: Engine, context: RequestContext
    ) -> Response:
        settings = self._settings
        name = f"cmpl-{uuid.uuid4().hex}"
        admitting = self._admission_controller.admit_prompt(asked, engine, name, context.key)
        admission = await in_time(request, context, admitting)
        observer: RequestObserver = request.state.observer
        hold = await self._reservations.reserve(
            context.key, name, admission, context.seconds, observer.came
        )
        observer.admitted(name, engine.model.name, asked, admission, context.name, hold)
        context = context.with_rate_limit_headers(hold.left)
        completion = CompletionRenderer(
            name,
            int(time.time()),
            engine.model.name,
            admission,
            observer.request_cost,
            asked,
            engine.codec,
            engine.model.markers.eos,
        )
        exchange = CompletionResponder(
            asked, admission, engine, observer, self._task_pool, context, completion
        )
        return await respond(request, exchange, settings)
