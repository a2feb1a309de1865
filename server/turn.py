"""One request's choices, generated side by side."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from budget import EndReason, Outcome
from server.channels import Channels, Piece
from server.engines.base import Engine, EngineUnavailable, Finish, Job

UNFINISHED = {
    Finish.STOP: EndReason.STOP,
    Finish.LENGTH: EndReason.LENGTH,
    Finish.ABORT: EndReason.CANCELLED,
}
"""Why a thinking that is still open ended, by how the generation ended."""


@dataclass(frozen=True, slots=True)
class End:
    """The account of one choice.

    Attributes:
        choice: which one.
        finish: why generation ended; ABORT if it was cut short from outside.
        outcome: what became of its thinking.
        tokens: all generated tokens, markers and end of turn included.
        answer_tokens: those of the answer.
    """

    choice: int
    finish: Finish
    outcome: Outcome
    tokens: int
    answer_tokens: int


class Account(Protocol):
    """Keeps the books of one request."""

    def begin(self) -> None:
        """A choice has begun to run."""

    def record(self, end: End) -> None:
        """A choice that had begun has ended, failed or been cancelled."""


class Crew:
    """The running tasks that generate, so that a server that stops can end them all."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[End]] = set()

    def start(self, work: Coroutine[Any, Any, End]) -> asyncio.Task[End]:
        """Run `work` in a task that is kept until it ends."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """End every task, and wait until they have."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Choice:
    """One job on its way through the engine."""

    def __init__(self, engine: Engine, job: Job, index: int, stops: Sequence[str]) -> None:
        self._engine = engine
        self._job = job
        self._index = index
        self._channels = Channels(engine.codec, engine.model, job, index, stops)

    async def run(self, emit: Callable[[Piece], None], account: Account) -> End:
        """Generate, and hand out each piece of text at once.

        Args:
            emit: takes the pieces.
            account: takes how it ended.

        Raises:
            EngineUnavailable: if the engine cannot go on.
            DesyncError: if the engine did not enforce the budget.
        """
        account.begin()
        try:
            finish = await self._generate(emit)
            end = await self._end(finish)
        except (Exception, asyncio.CancelledError):
            account.record(await self._broken_off())
            raise
        account.record(end)
        return end

    async def _generate(self, emit: Callable[[Piece], None]) -> Finish:
        channels = self._channels
        finish = Finish.ABORT
        async with aclosing(self._engine.generate(self._job)) as deltas:
            async for delta in deltas:
                for piece in channels.push(delta.token_ids):
                    emit(piece)
                if channels.stopped:
                    return Finish.STOP
                finish = delta.finish or finish
        if finish is Finish.ABORT:
            raise EngineUnavailable("the engine gave the request up")
        for piece in channels.close():
            emit(piece)
        return Finish.STOP if channels.stopped else finish

    async def _broken_off(self) -> End:
        """The account of a choice that did not come to its end, as far as it can be had."""
        try:
            return await self._end(Finish.ABORT)
        except Exception:
            return self._account(Finish.ABORT, None)

    async def _end(self, finish: Finish) -> End:
        attempts = await self._engine.attempts(self._job)
        if not self._job.budget.demands_thinking:
            return self._account(finish, attempts)
        # The other streams must not wait while a long thinking is gone through again.
        return await asyncio.to_thread(self._account, finish, attempts)

    def _account(self, finish: Finish, attempts: frozenset[int] | None) -> End:
        channels = self._channels
        outcome = channels.outcome(UNFINISHED[finish], attempts)
        return End(self._index, finish, outcome, len(channels.tokens), channels.answer_tokens)


async def generate(
    choices: Sequence[Choice], crew: Crew, account: Account
) -> AsyncGenerator[Piece | End, None]:
    """Run the choices side by side; pieces as they come, and each choice's end.

    Every choice runs in a task of its own: closing this generator cancels it
    once, so that the engine is told in peace, and its account is still taken.

    Raises:
        EngineUnavailable: if the engine cannot go on.
        DesyncError: if the engine did not enforce a budget.
    """
    queue: asyncio.Queue[Piece | asyncio.Task[End]] = asyncio.Queue()
    tasks = [crew.start(choice.run(queue.put_nowait, account)) for choice in choices]
    for task in tasks:
        task.add_done_callback(queue.put_nowait)
    try:
        running = len(tasks)
        while running:
            item = await queue.get()
            if isinstance(item, Piece):
                yield item
            else:
                running -= 1
                yield item.result()
    finally:
        for task in tasks:
            task.cancel()
