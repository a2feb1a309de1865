"""`POST /v1/chat/completions`: from a request to its answer, streamed or whole."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import dataclass

import orjson
from fastapi import Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from server.admission import Admission, Admissions
from server.answer import AnswerText
from server.asked import Given, contradiction
from server.body import parse_chat, read_body
from server.channels import Call, Channel, Channels, Piece
from server.completion import DONE, Completion, EventWriter, event
from server.engines.base import Engine, Job
from server.errors import ApiError, as_api_error
from server.host import EngineHost
from server.metrics import CLIENT_GONE, Meter
from server.presentation import with_tags
from server.schemas import ChatRequest, Reasoning, ReasoningFormat
from server.settings import Settings
from server.turn import Choice, Crew, End, Progress, Told, generate

logger = logging.getLogger(__name__)

HEARTBEAT = ServerSentEvent(comment="thinking", sep="\n")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One admitted request on its way to an answer."""

    request: ChatRequest
    engine: Engine
    completion: Completion
    meter: Meter
    crew: Crew

    def events(self) -> AsyncGenerator[Told | End, None]:
        """Generate all choices; closing this early aborts them in the engine."""
        jobs = self.completion.admission.jobs
        choices = [self._choice(job, index) for index, job in enumerate(jobs)]
        events = generate(choices, self.crew, self.meter)
        return with_tags(events) if self.completion.style is ReasoningFormat.TAGS else events

    async def whole(self) -> bytes:
        """The answer in one piece of JSON."""
        told: list[Piece | Call] = []
        ends: list[End] = []
        async with aclosing(self.events()) as events:
            async for item in events:
                if isinstance(item, End):
                    ends.append(item)
                elif not isinstance(item, Progress):
                    self.meter.saw(item.channel)
                    told.append(item)
        return orjson.dumps(self.completion.whole(told, ends))

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events; an error is the last of them."""
        begun = self.meter.status
        self.meter.status = CLIENT_GONE  # unless the last event is taken
        try:
            async with aclosing(self._chunks()) as chunks:
                async for chunk in chunks:
                    yield chunk
            self.meter.status = begun
        except Exception as error:
            told = _tell(error)
            self.meter.status = told.status
            yield event(told.to_json(), name="error")

    def _choice(self, job: Job, index: int) -> Choice:
        request, engine = self.request, self.engine
        bound = self.completion.admission.tools
        reader = None if bound is None else bound.reader(not request.stream)
        answer = AnswerText(request.stop or (), reader)
        channels = Channels(engine.codec, engine.model, job, index, answer, _scored(request))
        hidden = self.completion.style is ReasoningFormat.HIDDEN
        return Choice(engine, job, index, channels, progress=hidden and bool(request.stream))

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        writer = EventWriter(self.completion)
        ends: list[End] = []
        for index in range(len(self.completion.admission.jobs)):
            yield writer.role(index)
        async with aclosing(self.events()) as events:
            async for item in events:
                if isinstance(item, End):
                    ends.append(item)
                    yield writer.finish(item)
                else:
                    if not isinstance(item, Progress):
                        self.meter.saw(item.channel)
                    if written := writer.item(item):
                        yield written
        options = self.request.stream_options
        if options is not None and options.include_usage:
            yield writer.usage(ends)
        yield DONE


class Chat:
    """The endpoint."""

    def __init__(
        self,
        settings: Settings,
        host: EngineHost,
        admissions: Admissions,
        crew: Crew,
    ) -> None:
        self._settings = settings
        self._host = host
        self._admissions = admissions
        self._crew = crew

    async def __call__(self, request: Request) -> Response:
        """Answer one request.

        Raises:
            ApiError: if it is refused.
            BudgetError: if its budget cannot be enforced.
            EngineUnavailable: if the engine dies before the answer is there.
        """
        body = await read_body(request, self._settings.limits.max_body_bytes)
        asked = parse_chat(body)
        engine = await self._host.ready()
        name = f"chatcmpl-{uuid.uuid4().hex}"
        admission = await self._admissions.admit(asked, engine, name)
        meter = request.state.meter
        meter.admitted(admission)
        completion = Completion(
            name,
            int(time.time()),
            engine.model.name,
            admission,
            _style(asked, self._settings),
            self._settings.prices,
            engine.codec.token_bytes,
        )
        exchange = Exchange(asked, engine, completion, meter, self._crew)
        headers = _headers(asked, admission)
        if asked.stream:
            return self._streamed(exchange, headers)
        return await _unless_gone(request, exchange, headers)

    def _streamed(self, exchange: Exchange, headers: dict[str, str]) -> Response:
        limits = self._settings.limits
        return EventSourceResponse(
            exchange.stream(),
            headers=headers,
            sep="\n",
            ping=limits.heartbeat_seconds,
            ping_message_factory=lambda: HEARTBEAT,
            shutdown_grace_period=limits.shutdown_grace_seconds,
        )


async def _unless_gone(request: Request, exchange: Exchange, headers: dict[str, str]) -> Response:
    """The whole answer, given up at once if the client goes away."""
    answer = asyncio.create_task(exchange.whole())
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            return Response(status_code=CLIENT_GONE)
        return Response(answer.result(), media_type="application/json", headers=headers)
    finally:
        answer.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


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


def _headers(request: ChatRequest, admission: Admission) -> dict[str, str]:
    headers = {"x-budget-tier": admission.resolution.label}
    if ignored := request.ignored_fields():
        headers["x-ignored-fields"] = ", ".join(ignored)
    return headers


def _tell(error: Exception) -> ApiError:
    """What the client is told; what is a fault of ours, the log is told too."""
    told = as_api_error(error)
    if told.status >= 500:
        logger.error("an answer broke off: %s", error, exc_info=error)
    return told
