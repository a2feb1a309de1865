"""`POST /v1/chat/completions`: from a conversation to its answer."""

import time
import uuid
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response

from server.admission import Admissions
from server.answer import AnswerText
from server.asked import Given, contradiction
from server.body import parse_chat, read_body
from server.channels import Call, Channel, Channels, Piece
from server.completion import Completion, EventWriter
from server.engines.base import Engine, Job
from server.exchange import Exchange, in_time, respond
from server.host import EngineHost
from server.keys.purse import Purse
from server.metrics import Meter
from server.presentation import with_tags
from server.replays import Replays
from server.schemas import ChatRequest, Reasoning, ReasoningFormat
from server.settings import Settings
from server.terms import Terms
from server.turn import Choice, Crew, End, Told


@dataclass(frozen=True, slots=True)
class ChatExchange(Exchange):
    """One admitted chat."""

    request: ChatRequest
    completion: Completion

    def events(self) -> AsyncGenerator[Told | End, None]:
        """See `Exchange`."""
        events = Exchange.events(self)
        return with_tags(events) if self.completion.style is ReasoningFormat.TAGS else events

    def choice(self, job: Job, index: int) -> Choice:
        """See `Exchange`."""
        request, engine = self.request, self.engine
        bound = self.admission.tools
        reader = None if bound is None else bound.reader(not request.stream)
        answer = AnswerText(request.stop or (), reader)
        channels = Channels(engine.codec, engine.model, job, index, answer, _scored(request))
        hidden = self.completion.style is ReasoningFormat.HIDDEN
        return Choice(engine, job, index, channels, progress=hidden and bool(request.stream))

    def writer(self) -> EventWriter:
        """See `Exchange`."""
        return EventWriter(self.completion)

    def to_json(self, told: Sequence[Piece | Call], ends: Sequence[End]) -> dict[str, Any]:
        """See `Exchange`."""
        return self.completion.whole(told, ends)


class Chat:
    """The endpoint."""

    def __init__(
        self,
        settings: Settings,
        host: EngineHost,
        admissions: Admissions,
        crew: Crew,
        purse: Purse,
        replays: Replays,
    ) -> None:
        self._settings = settings
        self._host = host
        self._admissions = admissions
        self._crew = crew
        self._purse = purse
        self._replays = replays

    async def __call__(self, request: Request) -> Response:
        """Answer one request.

        Raises:
            ApiError: if it is refused.
            BudgetError: if its budget cannot be enforced.
            EngineUnavailable: if the engine dies before the answer is there.
        """
        settings = self._settings
        terms = Terms.of(request, settings.limits)
        self._crew.check()
        body = await read_body(request, settings.limits.max_body_bytes)
        asked = parse_chat(body)
        engine = await self._host.ready()
        return await self._replays.once(
            request, body, terms, lambda: self._answer(request, asked, engine, terms)
        )

    async def _answer(
        self, request: Request, asked: ChatRequest, engine: Engine, terms: Terms
    ) -> Response:
        settings = self._settings
        name = f"chatcmpl-{uuid.uuid4().hex}"
        admitting = self._admissions.admit(asked, engine, name, terms.key)
        admission = await in_time(request, terms, admitting)
        terms = terms.leaving(await self._purse.hold(terms.key, name, admission, terms.seconds))
        meter: Meter = request.state.meter
        meter.admitted(name, engine.model.name, asked, admission, terms.name)
        completion = Completion(
            name,
            int(time.time()),
            engine.model.name,
            admission,
            meter.bill,
            _style(asked, settings),
            engine.codec.token_bytes,
        )
        exchange = ChatExchange(asked, admission, engine, meter, self._crew, terms, completion)
        return await respond(request, exchange, settings.limits)


def _style(request: ChatRequest, settings: Settings) -> ReasoningFormat:
    """Where the thinking stands.

    Raises:
        BadRequest: if two fields contradict each other.
    """
    style, excludes = request.reasoning_format, (request.reasoning or Reasoning()).exclude
    if excludes and style not in (None, ReasoningFormat.HIDDEN):
        raise contradiction(Given("reasoning.exclude", True), Given("reasoning_format", style))
    return ReasoningFormat.HIDDEN if excludes else style or settings.reasoning_format


def _scored(request: ChatRequest) -> Collection[Channel]:
    """The channels whose tokens' log probabilities are told."""
    if not request.logprobs:
        return ()
    thinking = request.thinking is not None and request.thinking.logprobs
    return tuple(Channel) if thinking else (Channel.ANSWER,)
