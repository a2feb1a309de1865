"""One request's choices, generated side by side."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

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
        index: which choice.
        finish: why generation ended; ABORT if it was cut short from outside.
        outcome: what became of its thinking.
        tokens: all generated tokens, markers and end of turn included.
        answer_tokens: those of the answer.
    """

    index: int
    finish: Finish
    outcome: Outcome
    tokens: int
    answer_tokens: int


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

    def __init__(
        self, engine: Engine, job: Job, index: int, stops: Sequence[str]
    ) -> None:
        self._engine = engine
        self._job = job
        self._index = index
        self._channels = Channels(engine.codec, engine.model.markers, job, index, stops)

    async def run(
        self, emit: Callable[[Piece], None], record: Callable[[End], None]
    ) -> End:
        """Generate, and hand out each piece of text at once.

        Args:
            emit: takes the pieces.
            record: takes the account, also of a choice that failed or was cancelled.

        Raises:
            EngineUnavailable: if the engine cannot go on.
            DesyncError: if the engine did not enforce the budget.
        """
        finish = Finish.ABORT
        try:
            finish = await self._generate(emit)
            if finish is Finish.ABORT:
                raise EngineUnavailable("the engine gave the request up")
            end = self._end(finish, await self._engine.attempts(self._job))
        except BaseException:
            record(self._end(Finish.ABORT, None))
            raise
        record(end)
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
        for piece in channels.close():
            emit(piece)
        return Finish.STOP if channels.stopped else finish

    def _end(self, finish: Finish, attempts: frozenset[int] | None) -> End:
        channels = self._channels
        outcome = channels.outcome(UNFINISHED[finish], attempts)
        return End(self._index, finish, outcome, len(channels.tokens), channels.answer_tokens)


async def generate(
    choices: Sequence[Choice], crew: Crew, record: Callable[[End], None]
) -> AsyncGenerator[Piece | End, None]:
    """Run the choices side by side; pieces as they come, and each choice's end.

    Every choice runs in a task of its own: closing this generator cancels it
    once, so that the engine is told in peace, and its account is still taken.

    Raises:
        EngineUnavailable: if the engine cannot go on.
        DesyncError: if the engine did not enforce a budget.
    """
    queue: asyncio.Queue[Piece | asyncio.Task[End]] = asyncio.Queue()
    tasks = [crew.start(choice.run(queue.put_nowait, record)) for choice in choices]
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
