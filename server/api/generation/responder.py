"""Builds the HTTP response to an admitted request, streamed or not."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import orjson
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from proctor.server.channels.deltas import Channel, TextDelta, ToolCallDelta
from proctor.server.config.budgets import VoteMethod
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
)
from proctor.server.generation.context import RequestContext
from proctor.server.generation.early_exit.monitor import EarlyExitMonitor
from proctor.server.generation.parallel.budget_sharing import BudgetSharing
from proctor.server.generation.parallel.election import Election
from proctor.server.generation.parallel.scorers import BoundedScorer, ScorerFailed
from proctor.server.generation.runner import Choice, TaskPool, generate
from proctor.server.renderers.base import ResponseRenderer
from proctor.server.renderers.sse_encoder import SseEncoder
from proctor.server.schemas.generation import ChatRequest, Generation
from proctor.server.transport.sse import ErrorEvent, LastEvents, without_names
from proctor.server.transport.sse_response import SseResponse, disconnected

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Responder:
    """Generates the response to an admitted request.

    Attributes:
        request: the request.
        admission: the request's budget and jobs.
        engine: generates the choices.
        renderer: renders the response.
        observer: follows the request, for metrics, traces and the ledger.
        task_pool: runs the choices.
        context: the request's deadline and API key.
        rate_limit_headers: headers about the remaining limits of the key.
        scorer: scores the answers of parallel chains, or None without one.
    """

    request: Generation
    admission: Admission
    engine: Engine
    renderer: ResponseRenderer
    observer: ResponseObserver
    task_pool: TaskPool
    context: RequestContext
    rate_limit_headers: Mapping[str, str]
    scorer: BoundedScorer | None = None

    def events(self) -> AsyncGenerator[StreamItem | ChoiceResult, None]:
        """Generate all choices. Closing the generator early aborts them in the engine."""
        headers, session = self.observer.headers, self.context.session.id
        jobs = [replace(job, session=session, headers=headers) for job in self.admission.jobs]
        choices = [self._choice(job, index) for index, job in enumerate(jobs)]
        events = generate(choices, self.task_pool, self.observer, self.context)
        plan = self.admission.parallel
        if plan is not None:
            sharing = BudgetSharing(self.engine, jobs, choices, plan)
            is_scored = plan.parallel.method is VoteMethod.BEST_BY_KEY
            events = Election(
                plan,
                choices,
                sharing,
                self.observer,
                score=self._score if is_scored else None,
                continuous_usage=self.renderer.reports_usage,
            ).run(events)
        return self.renderer.transform(events)

    async def _score(self, answers: Sequence[str]) -> Sequence[float]:
        """Return the scores of answers to the request, within its deadline."""
        if self.scorer is None or not isinstance(self.request, ChatRequest):
            raise ScorerFailed("there is no scorer for this request")
        messages = [message.to_plain() for message in self.request.messages]
        try:
            async with asyncio.timeout_at(self.context.deadline):
                return await self.scorer.score(messages, answers)
        except TimeoutError:
            raise self.context.timeout_error() from None

    def _choice(self, job: Job, index: int) -> Choice:
        monitor, plan = None, self.admission.parallel
        if job.early_exit is not None and job.probe_allowance:
            slots = self.task_pool.spare_slot
            monitor = EarlyExitMonitor(job.early_exit, self.engine, job, slots)
        return Choice(
            self.engine,
            job,
            index,
            self.renderer.splitter(self.engine, job, index),
            progress=self.renderer.reports_progress,
            continuous_usage=self.renderer.reports_usage,
            monitor=monitor,
            max_other_tokens=None if plan is None else plan.other_tokens,
        )

    async def body(self) -> bytes:
        """Generate the choices, and return the body of the response as JSON."""
        items: list[OutputItem] = []
        seen: set[tuple[int, Channel]] = set()
        results: list[ChoiceResult] = []
        try:
            async with aclosing(self.events()) as events:
                async for item in events:
                    if isinstance(item, ChoiceResult):
                        results.append(item)
                    elif not isinstance(item, Progress):
                        self._observe(item, seen)
                        items.append(item)
        finally:
            await self.observer.settle()
        if any(isinstance(item, PromptLogprobs) for item in items):
            # In a thread: there can be 100,000 of them, which must not block other streams.
            return await asyncio.to_thread(lambda: orjson.dumps(self.renderer.body(items, results)))
        return orjson.dumps(self.renderer.body(items, results))

    def _observe(self, item: StreamItem, seen: set[tuple[int, Channel]]) -> None:
        """Report the first item of each choice's channels, or all items if they are followed.

        Most tokens are not reported: with many streams, the observers of each are no longer in
        the processor's caches.
        """
        if isinstance(item, (TextDelta, ToolCallDelta)):
            channel = (item.choice, item.channel)
            if channel not in seen:
                self.observer.item(item)
                if not self.observer.follows_items:
                    seen.add(channel)

    async def stream(self, encoder: SseEncoder) -> AsyncGenerator[bytes, None]:
        """Generate the choices, and yield server-sent events. An error is the last event."""
        status = self.observer.status
        self.observer.status = CLIENT_GONE  # unless the client receives the last event
        seen: set[tuple[int, Channel]] = set()
        results: list[ChoiceResult] = []
        try:
            for index in range(self.admission.choices):
                if first := encoder.begin(index):
                    yield first
            async with aclosing(self.events()) as events:
                async for item in events:
                    if isinstance(item, ChoiceResult):
                        results.append(item)
                        await self._before_last_chunk(results)
                        yield encoder.finish(item)
                    else:
                        self._observe(item, seen)
                        if encoded := encoder.item(item):
                            yield encoded
            yield LastEvents(encoder.end(results))
            self.observer.status = status
        except Exception as error:
            api_error = _to_api_error(error)
            self.observer.status = api_error.status
            await self.observer.settle()
            yield ErrorEvent(encoder.error(api_error))

    async def _before_last_chunk(self, results: Sequence[ChoiceResult]) -> None:
        if len(results) == self.admission.choices:
            await self.observer.settle()  # many clients stop reading after this event


async def respond(request: Request, responder: Responder, settings: Settings) -> Response:
    """Return the response, streamed if the request has `stream`."""
    headers, limits = headers_of(responder), settings.limits
    if not responder.request.stream:
        return await _complete_response(request, responder, headers)
    encoder = responder.renderer.encoder()
    events = responder.stream(encoder)
    event_names = coalesce(responder.context.event_names, responder.request.event_names)
    return SseResponse(
        events if coalesce(settings.event_names, event_names) else without_names(events),
        heartbeat=encoder.heartbeat,
        heartbeat_seconds=limits.heartbeat_seconds,
        send_timeout=limits.send_timeout_seconds,
        headers=headers,
    )


async def with_deadline(
    request: Request, context: RequestContext, coroutine: Coroutine[Any, Any, T]
) -> T:
    """Run a coroutine, cancelled at the request's deadline or if the client disconnects.

    Raises:
        ClientDisconnect: if the client disconnects.
        DeadlineExceeded: if the deadline passes.
    """
    try:
        async with asyncio.timeout_at(context.deadline):
            return await or_disconnect(request, coroutine)
    except TimeoutError:
        raise context.timeout_error() from None


async def or_disconnect(request: Request, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, cancelled as soon as the client disconnects.

    Raises:
        ClientDisconnect: if the client disconnects.
    """
    task = asyncio.create_task(coroutine)
    disconnect = asyncio.create_task(disconnected(request.receive))
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        disconnect.cancel()


async def _complete_response(
    request: Request, responder: Responder, headers: dict[str, str]
) -> Response:
    content = await or_disconnect(request, responder.body())
    cost = responder.renderer.envelope.request_cost.cost(responder.admission.prompt_tokens)
    if cost is not None:
        headers |= {"x-cost": f"{cost.total:f}"}
    return Response(content, media_type="application/json", headers=headers)


def headers_of(responder: Responder) -> dict[str, str]:
    """Return the headers of the response to an admitted request."""
    request, admission = responder.request, responder.admission
    headers = {
        "x-budget-tier": admission.resolution.label,
        **responder.rate_limit_headers,
        **request.ignored_header(),
    }
    requested, granted = request.requested_max_tokens, admission.max_tokens
    if admission.parallel is None:
        granted = admission.jobs[0].sampling.max_tokens
    if requested is not None and granted < requested:
        headers["x-max-tokens"] = str(granted)
    return headers


def _to_api_error(error: Exception) -> ApiError:
    """Convert an exception that ends a stream; log it if it is the server's fault."""
    api_error = as_api_error(error)
    if api_error.status >= 500 and not isinstance(error, Unavailable):
        logger.error("a stream failed: %s", error, exc_info=error)
    return api_error
