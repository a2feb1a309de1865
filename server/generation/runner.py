"""Generates the choices of a request concurrently."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from itertools import groupby
from typing import Any, cast

from proctor.budget import EndReason, EngineRecord, Outcome
from proctor.server.channels.deltas import Channel, TextDelta, TokenUsage, ToolCallDelta
from proctor.server.channels.splitter import ChannelSplitter
from proctor.server.engines.base import Engine, Finish, Job, TokenLogprob
from proctor.server.errors import SOON, ApiError, EngineUnavailable, Unavailable
from proctor.server.fair_queue import FairQueue
from proctor.server.generation.base import (
    PROGRESS_SECONDS,
    ChoiceResult,
    Progress,
    PromptLogprobs,
    RequestObserver,
    StreamItem,
)
from proctor.server.generation.context import RequestContext
from proctor.server.generation.early_exit.monitor import EarlyExitMonitor

UNFINISHED = {
    Finish.STOP: EndReason.STOP,
    Finish.LENGTH: EndReason.LENGTH,
    Finish.ABORT: EndReason.CANCELLED,
}
"""The end reason of a thinking block that is still open when generation ends."""


OutboxItem = StreamItem | asyncio.Task[ChoiceResult] | ApiError
"""An item of a choice, a choice that has finished, or what ends the request."""


class TaskPool:
    """The tasks that generate choices: limits their number, and ends them at shutdown."""

    def __init__(self, queue: FairQueue) -> None:
        self._queue = queue
        self._tasks: set[asyncio.Task[ChoiceResult]] = set()
        self._is_shut_down = False
        self._shutdown_callbacks: set[Callable[[], None]] = set()

    def check(self) -> None:
        """Return if the queue has room for another request.

        Raises:
            Overloaded: if it is full.
        """
        self._queue.check()

    async def start(
        self, coroutines: Sequence[Coroutine[Any, Any, ChoiceResult]], context: RequestContext
    ) -> list[asyncio.Task[ChoiceResult]]:
        """Wait in the queue until all coroutines can run, and start a task for each.

        Raises:
            Overloaded: if the queue is full.
            DeadlineExceeded: if the request's deadline passes before they can run.
            Unavailable: if the server shuts down before they can run.
        """
        try:
            since = await self._enter(context, len(coroutines))
        except BaseException:
            for coroutine in coroutines:
                coroutine.close()
            raise
        tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
        self._tasks.update(tasks)
        for task in tasks:
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: self._queue.leave(since))
        return tasks

    async def _enter(self, context: RequestContext, size: int) -> float:
        try:
            async with asyncio.timeout_at(context.deadline) as timeout:
                with self.on_shutdown(lambda: None if timeout.expired() else timeout.reschedule(0)):
                    return await self._queue.enter(context.name, size)
        except TimeoutError:
            raise (shutting_down() if self._is_shut_down else context.timeout_error()) from None

    @contextmanager
    def spare_slot(self) -> Iterator[bool]:
        """Take a slot for the duration of the body, if one is free and no request waits.

        Yields whether it did.
        """
        if not self._queue.try_enter():
            yield False
            return
        try:
            yield True
        finally:
            self._queue.release(1)

    @contextmanager
    def on_shutdown(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call `callback` if `end` is called while the body runs, or at once if it was before."""
        self._shutdown_callbacks.add(callback)
        try:
            if self._is_shut_down:
                callback()
            yield
        finally:
            self._shutdown_callbacks.discard(callback)

    def end(self) -> None:
        """Fail all requests that have not finished, as the server is shutting down."""
        self._is_shut_down = True
        for callback in self._shutdown_callbacks:
            callback()

    async def aclose(self) -> None:
        """Cancel every task and wait for them to end."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Choice:
    """One choice that an engine generates."""

    def __init__(
        self,
        engine: Engine,
        job: Job,
        index: int,
        channels: ChannelSplitter,
        *,
        progress: bool = False,
        continuous_usage: bool = False,
        monitor: EarlyExitMonitor | None = None,
        max_other_tokens: int | None = None,
    ) -> None:
        """Create a choice; `run` generates it.

        Args:
            engine: generates the job.
            job: what to generate.
            index: index of the choice.
            channels: splits its tokens.
            progress: whether to emit the progress of its thinking, every `PROGRESS_SECONDS`.
            continuous_usage: whether every item has the token usage so far.
            monitor: ends its thinking early, or None.
            max_other_tokens: the maximum number of tokens besides its thinking, or None if only
                the job limits its length.
        """
        self._engine = engine
        self._job = job
        self._index = index
        self._channels = channels
        self._progress = progress
        self._continuous_usage = continuous_usage
        self._monitor = monitor
        self._max_other_tokens = max_other_tokens
        self._generating: asyncio.Task[Any] | None = None
        self._stopped = False
        self._logprob = 0.0
        self._progress_at = 0.0
        self._progress_tokens = 0

    async def run(
        self, emit: Callable[[StreamItem], None], observer: RequestObserver
    ) -> ChoiceResult:
        """Generate the choice, emit its items as they come, and return its result.

        Args:
            emit: receives the items.
            observer: receives the choice's events, the result included.

        Raises:
            EngineUnavailable: if the engine cannot continue.
            DesyncError: if the engine did not enforce the budget.
        """
        observer.choice_started(self._index, self._so_far)
        try:
            try:
                finish = await self._generate_until_stopped(emit, observer)
            finally:
                observer.choice_left_engine(self._index)
            result = await self._end(finish)
        except (Exception, asyncio.CancelledError):
            observer.choice_finished(await self._aborted())
            raise
        observer.choice_finished(result)
        return result

    def stop(self) -> None:
        """End the choice where it is, as a stop string does, if the engine still generates it."""
        if self._generating is not None and not self._stopped:
            self._stopped = True
            self._generating.cancel()

    @property
    def used(self) -> TokenUsage:
        """The token usage so far."""
        tokens, thinking = self._channels.used
        return TokenUsage(tokens + self._probe_tokens, thinking + self._probe_tokens)

    @property
    def is_settled(self) -> bool:
        """Whether its thinking ends early, as its answer is settled."""
        return self._monitor is not None and self._monitor.is_settled

    @property
    def confidence(self) -> float:
        """The geometric mean of the probabilities of its tokens, if the job reports them, or 1."""
        return math.exp(min(0.0, self._logprob / max(1, len(self._channels.tokens))))

    async def _generate_until_stopped(
        self, emit: Callable[[StreamItem], None], observer: RequestObserver
    ) -> Finish:
        task = self._generating = asyncio.current_task()
        try:
            return await self._generate(emit, observer)
        except asyncio.CancelledError:
            # It may have been cancelled as well.
            if task is None or not self._stopped or task.uncancel():
                raise
            return Finish.STOP
        finally:
            self._generating = None

    async def _generate(
        self, emit: Callable[[StreamItem], None], observer: RequestObserver
    ) -> Finish:
        channels, is_bounded = self._channels, self._max_other_tokens is not None
        finish = Finish.ABORT
        async with AsyncExitStack() as stack:
            deltas = await stack.enter_async_context(aclosing(self._engine.generate(self._job)))
            if self._monitor is not None:
                await stack.enter_async_context(aclosing(self._monitor))
            async for delta in deltas:
                if not channels.tokens:
                    observer.first_token(self._index)
                if delta.cached_tokens is not None:
                    observer.prompt_cached(self._index, delta.cached_tokens)
                if delta.prompt_logprobs is not None:
                    emit(PromptLogprobs(self._index, delta.prompt_logprobs))
                push = self._push_bounded if is_bounded else channels.push
                for item in push(delta.token_ids, delta.logprobs):
                    emit(self._with_usage(item))
                if self._monitor is not None:
                    self._monitor.push(channels)
                if self._progress:
                    self._emit_progress(emit)
                if channels.stopped:
                    for item in channels.stop():
                        emit(item)
                    return Finish.STOP
                finish = delta.finish or finish
                if is_bounded and self._is_full and finish is not Finish.STOP:
                    finish = Finish.LENGTH
                    break
        if finish is Finish.ABORT:
            raise EngineUnavailable("the engine aborted the request")
        for item in channels.close(cut=finish is Finish.LENGTH):
            emit(self._with_usage(item))
        return Finish.STOP if channels.stopped else finish

    def _push_bounded(
        self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]
    ) -> Iterator[TextDelta | ToolCallDelta]:
        """Split tokens, except those that exceed the maximum of tokens besides the thinking."""
        for index, token in enumerate(token_ids):
            if self._is_full:
                return
            scores = logprobs[index : index + 1]
            self._logprob += sum(score.logprob for score in scores)
            yield from self._channels.push((token,), scores)

    @property
    def _is_full(self) -> bool:
        tokens, thinking = self._channels.used
        return self._max_other_tokens is not None and tokens - thinking >= self._max_other_tokens

    def _with_usage(self, item: TextDelta | ToolCallDelta | Progress) -> StreamItem:
        return item._replace(used=self._channels.used) if self._continuous_usage else item

    def _emit_progress(self, emit: Callable[[StreamItem], None]) -> None:
        now, tokens = time.monotonic(), self._channels.thinking_tokens
        if tokens > self._progress_tokens and now >= self._progress_at + PROGRESS_SECONDS:
            self._progress_at, self._progress_tokens = now, tokens
            emit(self._with_usage(Progress(self._index, tokens)))

    def _so_far(self) -> ChoiceResult:
        channels = self._channels
        outcome = Outcome(channels.thinking_tokens, (), 0, EndReason.CANCELLED, {})
        return ChoiceResult(
            self._index,
            Finish.ABORT,
            outcome,
            (),
            len(channels.tokens) + self._probe_tokens,
            channels.answer_tokens,
            channels.calls,
            probe_tokens=self._probe_tokens,
        )

    @property
    def _probe_tokens(self) -> int:
        return 0 if self._monitor is None else self._monitor.probe_tokens

    async def _aborted(self) -> ChoiceResult:
        """Return the result of a choice that failed or was cancelled, as far as it is known."""
        try:
            return await self._end(Finish.ABORT)
        except Exception:
            return self._result(Finish.ABORT, None)

    async def _end(self, finish: Finish) -> ChoiceResult:
        record = await self._engine.record(self._job)
        if not self._job.has_record:
            return self._result(finish, record)
        # In a thread: replaying a long thinking must not block other streams.
        return await asyncio.to_thread(self._result, finish, record)

    def _result(self, finish: Finish, record: EngineRecord | None) -> ChoiceResult:
        channels = self._channels
        outcome = channels.outcome(UNFINISHED[finish], record)
        return ChoiceResult(
            self._index,
            finish,
            outcome,
            channels.forced_spans(outcome),
            len(channels.tokens) + self._probe_tokens,
            channels.answer_tokens,
            channels.calls,
            channels.tokens,
            channels.stop_string,
            self._probe_tokens,
        )


class Outbox:
    """What the choices of a request emit, until its response takes it.

    A response that keeps up takes every item as it comes. One that is behind, as other streams kept
    the event loop busy, takes all that has come meanwhile, with consecutive text as one item.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: list[OutboxItem] = []
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: OutboxItem) -> None:
        """Add an item."""
        self._items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> list[OutboxItem]:
        """Wait for items, and remove and return all of them; only one task may do so."""
        if not self._items:
            self._waiter = self._loop.create_future()
            await self._waiter
        items, self._items = self._items, []
        return items if len(items) == 1 else _join_text(items)


def _join_text(items: Iterable[OutboxItem]) -> list[OutboxItem]:
    joined: list[OutboxItem] = []
    for key, group in groupby(items, _text_key):
        first, *following = group
        if key is not None and following:
            first = cast(TextDelta, first).joined(cast(list[TextDelta], following))
            following = []
        joined += [first, *following]
    return joined


def _text_key(item: OutboxItem) -> tuple[int, Channel] | None:
    """Return the choice and channel of a text, or None for other items."""
    return (item.choice, item.channel) if isinstance(item, TextDelta) else None


async def generate(
    choices: Sequence[Choice],
    task_pool: TaskPool,
    observer: RequestObserver,
    context: RequestContext,
) -> AsyncGenerator[StreamItem | ChoiceResult, None]:
    """Run the choices concurrently, and yield their items as they come and their results.

    Every choice runs in its own task. Closing this generator cancels each task exactly once, so
    that the choice can abort its job and record its result undisturbed.

    Raises:
        Overloaded: if the queue is full.
        DeadlineExceeded: if the request's deadline passes.
        Unavailable: if the server shuts down.
        EngineUnavailable: if the engine cannot continue.
        DesyncError: if the engine did not enforce a budget.
    """
    outbox = Outbox()
    tasks = await task_pool.start([choice.run(outbox.put, observer) for choice in choices], context)
    for task in tasks:
        task.add_done_callback(outbox.put)
    loop = asyncio.get_running_loop()
    timeout = loop.call_at(context.deadline, outbox.put, context.timeout_error())
    try:
        with task_pool.on_shutdown(lambda: outbox.put(shutting_down())):
            running = len(tasks)
            while running:
                for item in await outbox.take():
                    if isinstance(item, ApiError):
                        raise item
                    if isinstance(item, asyncio.Task):
                        running -= 1
                        yield item.result()
                    else:
                        yield item
    finally:
        timeout.cancel()
        for task in tasks:
            task.cancel()


def shutting_down() -> Unavailable:
    """Return the error of requests that have not finished when the server shuts down."""
    return Unavailable("the server is shutting down", headers=SOON)
