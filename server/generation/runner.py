"""One request's choices, generated side by side."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from proctor.budget import EndReason, Outcome
from proctor.server.engines.base import Engine, Finish, Job, TokenLogprob
from proctor.server.errors import SOON, ApiError, EngineUnavailable, Unavailable
from proctor.server.fair_queue import FairQueue
from proctor.server.generation.channels import ChannelSplitter, TextDelta, TokenUsage, ToolCallDelta
from proctor.server.generation.context import RequestContext
from proctor.server.generation.forced_spans import ForcedSpan

UNFINISHED = {
    Finish.STOP: EndReason.STOP,
    Finish.LENGTH: EndReason.LENGTH,
    Finish.ABORT: EndReason.CANCELLED,
}
"""Why a thinking that is still open ended, by how the generation ended."""


PROGRESS_SECONDS = 0.5


class PromptLogprobs(NamedTuple):
    """How likely one choice's prompt is: scores of its tokens but the first."""

    choice: int
    scores: Sequence[TokenLogprob]


class Progress(NamedTuple):
    """How far one choice's thinking is."""

    choice: int
    tokens: int
    used: TokenUsage | None = None


OutputItem = TextDelta | ToolCallDelta | PromptLogprobs
"""What is told of a choice in the end."""

StreamItem = OutputItem | Progress
"""What is told of a choice while it runs."""


@dataclass(frozen=True, slots=True)
class ChoiceResult:
    """The account of one choice.

    Attributes:
        choice: which one.
        finish: why generation ended; ABORT if it was cut short from outside.
        outcome: what became of its thinking.
        forced_spans: where the server's own words stand in its text.
        tokens: all generated tokens, markers and end of turn included.
        answer_tokens: those of the answer.
        calls: tool calls in it.
        token_ids: the ids of all generated tokens.
    """

    choice: int
    finish: Finish
    outcome: Outcome
    forced_spans: tuple[ForcedSpan, ...]
    tokens: int
    answer_tokens: int
    calls: int
    token_ids: Sequence[int] = ()

    @property
    def used(self) -> TokenUsage:
        """What it has used."""
        return TokenUsage(self.tokens, self.outcome.tokens)


class ChoiceObserver(Protocol):
    """What is called as choices run; see `RequestObserver`."""

    def choice_started(self, choice: int, so_far: "Callable[[], ChoiceResult]") -> None:
        """A choice enters the engine."""

    def first_token(self, choice: int, cached_tokens: int | None) -> None:
        """The first tokens of a choice have arrived."""

    def choice_left_engine(self, choice: int) -> None:
        """A choice has left the engine."""

    def choice_finished(self, result: ChoiceResult) -> None:
        """A choice has finished."""


class TaskPool:
    """The running tasks that generate: so many at a time, and all ended by a server that stops."""

    def __init__(self, line: FairQueue) -> None:
        self._line = line
        self._tasks: set[asyncio.Task[ChoiceResult]] = set()
        self._over = False
        self._alarms: set[Callable[[], None]] = set()

    def check(self) -> None:
        """Return if another request can be taken.

        Raises:
            Overloaded: if too many are waiting.
        """
        self._line.check()

    async def start(
        self, works: Sequence[Coroutine[Any, Any, ChoiceResult]], context: RequestContext
    ) -> list[asyncio.Task[ChoiceResult]]:
        """Wait in line until all of `works` can run, and run each in a task that is kept.

        Raises:
            Overloaded: if there is no room in the line.
            DeadlineExceeded: if the time is over before they can run.
            Unavailable: if the server ends before.
        """
        try:
            since = await self._enter(context, len(works))
        except BaseException:
            for work in works:
                work.close()
            raise
        tasks = [asyncio.create_task(work) for work in works]
        self._tasks.update(tasks)
        for task in tasks:
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: self._line.leave(since))
        return tasks

    async def _enter(self, context: RequestContext, size: int) -> float:
        try:
            async with asyncio.timeout_at(context.deadline) as limit:
                with self.alarm(lambda: None if limit.expired() else limit.reschedule(0)):
                    return await self._line.enter(context.name, size)
        except TimeoutError:
            raise (_shutting_down() if self._over else context.overdue()) from None

    @contextmanager
    def alarm(self, ring: Callable[[], None]) -> Iterator[None]:
        """Have something called when the server answers nothing more, at once if that is so."""
        self._alarms.add(ring)
        try:
            if self._over:
                ring()
            yield
        finally:
            self._alarms.discard(ring)

    def end(self) -> None:
        """The server was told to stop, and what has not been answered by now will not be."""
        self._over = True
        for ring in self._alarms:
            ring()

    async def aclose(self) -> None:
        """End every task, and wait until they have."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Choice:
    """One job on its way through the engine."""

    def __init__(
        self,
        engine: Engine,
        job: Job,
        index: int,
        channels: ChannelSplitter,
        *,
        progress: bool = False,
        counted: bool = False,
    ) -> None:
        """Begin before the job's first token.

        Args:
            engine: what generates it.
            job: what to generate.
            index: which choice it is.
            channels: splits its tokens.
            progress: whether to tell how far its thinking is, twice a second.
            counted: whether to tell with each piece what has been used so far.
        """
        self._engine = engine
        self._job = job
        self._index = index
        self._channels = channels
        self._progress = progress
        self._counted = counted
        self._told_at = 0.0
        self._told = 0

    async def run(
        self, emit: Callable[[StreamItem], None], observer: ChoiceObserver
    ) -> ChoiceResult:
        """Generate, and hand out each piece of text at once.

        Args:
            emit: takes what there is to tell.
            observer: observes it.

        Raises:
            EngineUnavailable: if the engine cannot go on.
            DesyncError: if the engine did not enforce the budget.
        """
        observer.choice_started(self._index, self._so_far)
        try:
            try:
                finish = await self._generate(emit, observer)
            finally:
                observer.choice_left_engine(self._index)
            end = await self._end(finish)
        except (Exception, asyncio.CancelledError):
            observer.choice_finished(await self._broken_off())
            raise
        observer.choice_finished(end)
        return end

    async def _generate(
        self, emit: Callable[[StreamItem], None], observer: ChoiceObserver
    ) -> Finish:
        channels = self._channels
        finish = Finish.ABORT
        async with aclosing(self._engine.generate(self._job)) as deltas:
            async for delta in deltas:
                if not channels.tokens:
                    observer.first_token(self._index, delta.cached)
                if delta.prompt_scores is not None:
                    emit(PromptLogprobs(self._index, delta.prompt_scores))
                for item in channels.push(delta.token_ids, delta.scores):
                    emit(self._count(item))
                if self._progress:
                    self._tell_progress(emit)
                if channels.stopped:
                    for item in channels.stop():
                        emit(item)
                    return Finish.STOP
                finish = delta.finish or finish
        if finish is Finish.ABORT:
            raise EngineUnavailable("the engine gave the request up")
        for item in channels.close(cut=finish is Finish.LENGTH):
            emit(self._count(item))
        return Finish.STOP if channels.stopped else finish

    def _count(self, item: TextDelta | ToolCallDelta | Progress) -> StreamItem:
        return item._replace(used=self._channels.used) if self._counted else item

    def _tell_progress(self, emit: Callable[[StreamItem], None]) -> None:
        now, tokens = time.monotonic(), self._channels.thinking_tokens
        if tokens > self._told and now >= self._told_at + PROGRESS_SECONDS:
            self._told_at, self._told = now, tokens
            emit(self._count(Progress(self._index, tokens)))

    def _so_far(self) -> ChoiceResult:
        channels = self._channels
        outcome = Outcome(channels.thinking_tokens, (), 0, EndReason.CANCELLED, {})
        return ChoiceResult(
            self._index,
            Finish.ABORT,
            outcome,
            (),
            len(channels.tokens),
            channels.answer_tokens,
            channels.calls,
        )

    async def _broken_off(self) -> ChoiceResult:
        """The account of a choice that did not come to its end, as far as it can be had."""
        try:
            return await self._end(Finish.ABORT)
        except Exception:
            return self._account(Finish.ABORT, None)

    async def _end(self, finish: Finish) -> ChoiceResult:
        attempts = await self._engine.attempts(self._job)
        if not self._job.budget.demands_thinking:
            return self._account(finish, attempts)
        # The other streams must not wait while a long thinking is gone through again.
        return await asyncio.to_thread(self._account, finish, attempts)

    def _account(self, finish: Finish, attempts: frozenset[int] | None) -> ChoiceResult:
        channels = self._channels
        outcome = channels.outcome(UNFINISHED[finish], attempts)
        return ChoiceResult(
            self._index,
            finish,
            outcome,
            channels.forced_spans(outcome),
            len(channels.tokens),
            channels.answer_tokens,
            channels.calls,
            channels.tokens,
        )


async def generate(
    choices: Sequence[Choice],
    task_pool: TaskPool,
    observer: ChoiceObserver,
    context: RequestContext,
) -> AsyncGenerator[StreamItem | ChoiceResult, None]:
    """Run the choices side by side; what there is to tell as it comes, and each choice's end.

    Every choice runs in a task of its own: closing this generator cancels it
    once, so that the engine is told in peace, and its account is still taken.

    Raises:
        Overloaded: if too many are waiting to run.
        DeadlineExceeded: if the time is over.
        Unavailable: if the server ends.
        EngineUnavailable: if the engine cannot go on.
        DesyncError: if the engine did not enforce a budget.
    """
    queue: asyncio.Queue[StreamItem | asyncio.Task[ChoiceResult] | ApiError] = asyncio.Queue()
    tasks = await task_pool.start(
        [choice.run(queue.put_nowait, observer) for choice in choices], context
    )
    for task in tasks:
        task.add_done_callback(queue.put_nowait)
    loop = asyncio.get_running_loop()
    alarm = loop.call_at(context.deadline, queue.put_nowait, context.overdue())
    try:
        with task_pool.alarm(lambda: queue.put_nowait(_shutting_down())):
            running = len(tasks)
            while running:
                item = await queue.get()
                if isinstance(item, ApiError):
                    raise item
                if isinstance(item, asyncio.Task):
                    running -= 1
                    yield item.result()
                else:
                    yield item
    finally:
        alarm.cancel()
        for task in tasks:
            task.cancel()


def _shutting_down() -> Unavailable:
    return Unavailable("the server is shutting down", headers=SOON)
