"""From an admitted request to its HTTP response, streamed or whole."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from fastapi import Request, Response
from sse_starlette import ServerSentEvent
from starlette.requests import ClientDisconnect

from proctor.server.config.section import coalesce
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine, Job
from proctor.server.errors import CLIENT_GONE, ApiError, Unavailable, as_api_error
from proctor.server.generation.base import (
    Admission,
    ChoiceResult,
    OutputItem,
    Progress,
    PromptLogprobs,
    ResponseObserver,
    StreamItem,
    TextDelta,
    ToolCallDelta,
)
from proctor.server.generation.context import RequestContext
from proctor.server.generation.runner import Choice, TaskPool, generate
from proctor.server.renderers.base import ResponseRenderer
from proctor.server.schemas.generation import Generation
from proctor.server.transport.sse import DONE, ErrorEvent, SseResponse, event, without_names

logger = logging.getLogger(__name__)

T = TypeVar("T")

HEARTBEAT = ServerSentEvent(comment="thinking", sep="\n")


@dataclass(frozen=True, slots=True)
class Responder:
    """One admitted request on its way to its response.

    Attributes:
        request: the request.
        admission: its budget and jobs.
        engine: generates its choices.
        renderer: renders its response.
        observer: follows it, for metrics, traces and the ledger.
        task_pool: runs its choices.
        context: its deadline, and the key that it came with.
        rate_limit_headers: what its key has left.
    """

    request: Generation
    admission: Admission
    engine: Engine
    renderer: ResponseRenderer
    observer: ResponseObserver
    task_pool: TaskPool
    context: RequestContext
    rate_limit_headers: Mapping[str, str]

    @property
    def counted(self) -> bool:
        """Whether every chunk of the stream tells what has been used so far."""
        options = self.request.stream_options
        return options is not None and bool(
            options.include_usage and options.continuous_usage_stats
        )

    def events(self) -> AsyncGenerator[StreamItem | ChoiceResult, None]:
        """Generate all choices; closing this early aborts them in the engine."""
        choices = [self._choice(job, index) for index, job in enumerate(self.admission.jobs)]
        events = generate(choices, self.task_pool, self.observer, self.context)
        return self.renderer.transform(events)

    def _choice(self, job: Job, index: int) -> Choice:
        return Choice(
            self.engine,
            job,
            index,
            self.renderer.splitter(self.engine, job, index),
            progress=self.renderer.reports_progress,
            counted=self.counted,
        )

    async def whole(self) -> bytes:
        """The answer in one piece of JSON."""
        items: list[OutputItem] = []
        results: list[ChoiceResult] = []
        try:
            async with aclosing(self.events()) as events:
                async for item in events:
                    if isinstance(item, ChoiceResult):
                        results.append(item)
                    elif not isinstance(item, Progress):
                        self._saw(item)
                        items.append(item)
        finally:
            await self.observer.settle()
        if any(isinstance(item, PromptLogprobs) for item in items):
            # They can be a hundred thousand, and other streams wait meanwhile.
            return await asyncio.to_thread(
                lambda: orjson.dumps(self.renderer.whole(items, results))
            )
        return orjson.dumps(self.renderer.whole(items, results))

    def _saw(self, item: StreamItem) -> None:
        if isinstance(item, TextDelta | ToolCallDelta):
            self.observer.item(item)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events; an error is the last of them."""
        begun = self.observer.status
        self.observer.status = CLIENT_GONE  # unless the last event is taken
        try:
            async with aclosing(self._chunks()) as chunks:
                async for chunk in chunks:
                    yield chunk
            self.observer.status = begun
        except Exception as error:
            told = _tell(error)
            self.observer.status = told.status
            await self.observer.settle()
            yield ErrorEvent(event(told.to_json(), name="error"))

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        encoder = self.renderer.encoder(self.counted)
        results: list[ChoiceResult] = []
        for index in range(len(self.admission.jobs)):
            if begun := encoder.begin(index):
                yield begun
        async with aclosing(self.events()) as events:
            async for item in events:
                if isinstance(item, ChoiceResult):
                    results.append(item)
                    if len(results) == len(self.admission.jobs):
                        await self.observer.settle()  # many a client reads no further than this
                    yield encoder.finish(item)
                else:
                    self._saw(item)
                    if written := encoder.item(item):
                        yield written
        options = self.request.stream_options
        if options is not None and options.include_usage:
            yield encoder.usage(results)
        yield DONE


async def respond(request: Request, responder: Responder, settings: Settings) -> Response:
    """The answer, in the way that was asked for."""
    headers, limits = _headers(responder), settings.limits
    if not responder.request.stream:
        return await _whole(request, responder, headers)
    events = responder.stream()
    asked = coalesce(responder.context.event_names, responder.request.event_names)
    return SseResponse(
        events if coalesce(settings.event_names, asked) else without_names(events),
        headers=headers,
        sep="\n",
        ping=limits.heartbeat_seconds,
        ping_message_factory=lambda: HEARTBEAT,
        send_timeout=limits.send_timeout_seconds,
    )


async def in_time(request: Request, context: RequestContext, work: Coroutine[Any, Any, T]) -> T:
    """What is done before there is an answer: given up if the client goes, or its time is over.

    Raises:
        ClientDisconnect: if the client has gone away.
        DeadlineExceeded: if its time is over.
    """
    try:
        async with asyncio.timeout_at(context.deadline):
            return await unless_gone(request, work)
    except TimeoutError:
        raise context.timeout_error() from None


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives; it is given up at once if the client goes away.

    Raises:
        ClientDisconnect: if the client has gone away.
    """
    working = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def _whole(request: Request, responder: Responder, headers: dict[str, str]) -> Response:
    content = await unless_gone(request, responder.whole())
    cost = responder.renderer.envelope.request_cost.cost(responder.admission.prompt_tokens)
    if cost is not None:
        headers |= {"x-cost": f"{cost.total:f}"}
    return Response(content, media_type="application/json", headers=headers)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _headers(responder: Responder) -> dict[str, str]:
    return {
        "x-budget-tier": responder.admission.resolution.label,
        **responder.rate_limit_headers,
        **responder.request.ignored_header(),
    }


def _tell(error: Exception) -> ApiError:
    """What the client is told; what is a fault of ours, the log is told too."""
    told = as_api_error(error)
    if told.status >= 500 and not isinstance(error, Unavailable):
        logger.error("an answer broke off: %s", error, exc_info=error)
    return told
