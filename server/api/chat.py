"""`POST /v1/chat/completions`: from a conversation to its answer."""

import time
import uuid
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response

from proctor.server.accounting.reservations import Reservations
from proctor.server.api.idempotency import IdempotencyCache, digest_of
from proctor.server.api.responder import Responder, in_time, respond
from proctor.server.config.reasoning_format import ReasoningFormat
from proctor.server.config.section import coalesce
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine, Job
from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.errors import BadRequest
from proctor.server.generation.admission import AdmissionController
from proctor.server.generation.answer_text import AnswerText
from proctor.server.generation.budget_request import (
    FieldValue,
    contradiction,
    read_include_reasoning,
)
from proctor.server.generation.channels import Channel, ChannelSplitter
from proctor.server.generation.context import RequestContext
from proctor.server.generation.runner import Choice, ChoiceResult, OutputItem, StreamItem, TaskPool
from proctor.server.renderers.chat import ChatRenderer, ChatSseEncoder
from proctor.server.renderers.reasoning_format import with_tags
from proctor.server.schemas.generation import ChatRequest
from proctor.server.schemas.parsing import parse_chat
from proctor.server.telemetry.request_observer import RequestObserver
from proctor.server.transport.bodies import BodyReader

SEPARATE = ReasoningFormat.REASONING_CONTENT
"""Where the thinking stands if a request wants it beside the content, and the default does not."""


@dataclass(frozen=True, slots=True)
class ChatResponder(Responder):
    """One admitted chat."""

    request: ChatRequest
    completion: ChatRenderer

    def events(self) -> AsyncGenerator[StreamItem | ChoiceResult, None]:
        """See `Responder`."""
        events = Responder.events(self)
        return with_tags(events) if self.completion.style is ReasoningFormat.TAGS else events

    def choice(self, job: Job, index: int) -> Choice:
        """See `Responder`."""
        request, engine = self.request, self.engine
        bound = self.admission.tools
        reader = None if bound is None else bound.reader()
        answer = AnswerText(request.stop or (), reader, request.min_tokens or 0)
        hidden = self.completion.style is ReasoningFormat.HIDDEN
        scored = _scored(request, hidden)
        channels = ChannelSplitter(
            engine.codec,
            engine.model,
            job,
            index,
            answer,
            scored,
            with_ids=self.completion.with_ids,
        )
        progress = hidden and bool(request.stream)
        return Choice(engine, job, index, channels, progress=progress, counted=self.counted)

    def writer(self) -> ChatSseEncoder:
        """See `Responder`."""
        return ChatSseEncoder(self.completion, self.counted)

    def to_json(self, told: Sequence[OutputItem], ends: Sequence[ChoiceResult]) -> dict[str, Any]:
        """See `Responder`."""
        return self.completion.whole(told, ends)


class ChatEndpoint:
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
        """Answer one request.

        Raises:
            ApiError: if it is refused.
            BudgetError: if its budget cannot be enforced.
            EngineUnavailable: if the engine dies before the answer is there.
        """
        context = RequestContext.of(request, self._settings.limits)
        self._task_pool.check()
        body = await self._bodies.read(request)
        asked, digest = parse_chat(body), digest_of(body)
        del body  # which the answer, however long it takes, needs no more
        engine = await self._host.ready()
        return await self._replays.get_or_run(
            request, digest, context, lambda: self._answer(request, asked, engine, context)
        )

    async def _answer(
        self, request: Request, asked: ChatRequest, engine: Engine, context: RequestContext
    ) -> Response:
        settings = self._settings
        style = _style(asked, settings)
        _check_ids(asked, style)
        name = f"chatcmpl-{uuid.uuid4().hex}"
        admitting = self._admission_controller.admit(asked, engine, name, context.key)
        admission = await in_time(request, context, admitting)
        observer: RequestObserver = request.state.observer
        hold = await self._reservations.reserve(
            context.key, name, admission, context.seconds, observer.came
        )
        observer.admitted(name, engine.model.name, asked, admission, context.name, hold)
        context = context.with_rate_limit_headers(hold.left)
        completion = ChatRenderer(
            name,
            int(time.time()),
            engine.model.name,
            admission,
            observer.request_cost,
            style,
            engine.codec.token_bytes,
            asked.prompt_logprobs,
            bool(asked.return_token_ids),
            asked.messages[-1].unfinished().text if asked.echo else "",
        )
        exchange = ChatResponder(
            asked, admission, engine, observer, self._task_pool, context, completion
        )
        return await respond(request, exchange, settings)


def _style(request: ChatRequest, settings: Settings) -> ReasoningFormat:
    """Where the thinking stands.

    Raises:
        BadRequest: if two fields contradict each other.
    """
    given, separate = request.reasoning_format, request.separate_reasoning
    style, shown = coalesce(settings.reasoning_format, given), read_include_reasoning(request)
    if shown is not None and shown.value is (style is ReasoningFormat.HIDDEN):
        if given is not None:
            raise contradiction(shown, FieldValue("reasoning_format", given))
        style = SEPARATE if shown.value else ReasoningFormat.HIDDEN
    if separate is None or separate is not (style is ReasoningFormat.TAGS):
        return style
    told = FieldValue("separate_reasoning", separate)
    if given is not None:
        raise contradiction(told, FieldValue("reasoning_format", given))
    if style is ReasoningFormat.HIDDEN and shown is not None:
        raise contradiction(told, shown)
    return SEPARATE if separate else ReasoningFormat.TAGS


def _check_ids(request: ChatRequest, style: ReasoningFormat) -> None:
    """See that token ids tell nothing that is hidden.

    Raises:
        BadRequest: if they would.
    """
    if style is ReasoningFormat.HIDDEN and request.return_token_ids:
        raise BadRequest(
            "'return_token_ids' would tell the thinking, which is hidden: leave it out, or show "
            "the thinking with 'reasoning_format'",
            param="return_token_ids",
        )


def _scored(request: ChatRequest, hidden: bool) -> Collection[Channel]:
    """The channels whose tokens' log probabilities are told; a hidden thinking's never are."""
    if not request.logprobs:
        return ()
    thinking = request.thinking is not None and request.thinking.logprobs and not hidden
    return tuple(Channel) if thinking else (Channel.ANSWER,)
