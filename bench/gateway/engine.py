"""A scripted engine over the demo model's tokenizer."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from bench.gateway.script import PERIOD, StepClocks, letter_ids
from proctor.budget import EMPTY_RECORD, EndReason, EngineRecord, Move, TokenBudget
from proctor.server.engines.base import Delta, Finish, Job, ModelInfo
from proctor.server.engines.local_model import LocalModel
from proctor.server.engines.processes.stall import StallTimeouts
from proctor.server.engines.tool_calls import ToolFormat

CONTEXT_LENGTH = 2**30


class ScriptedEngine:
    """An engine whose tokens come from a script: half of them are thinking.

    The seed of a job is its rate, in tokens per minute.
    """

    def __init__(self, local: LocalModel, name: str) -> None:
        self.model = ModelInfo(
            name, CONTEXT_LENGTH, local.markers, created=0, vocabulary=local.vocabulary
        )
        self.codec = local.codec
        self.tools: ToolFormat | None = None
        self._clocks = StepClocks()
        self._ids = letter_ids(local.codec.encode)

    async def check(self, job: Job) -> None:
        pass

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        total, sent = job.sampling.max_tokens, 0
        async with aclosing(self._clocks.counts(job.sampling.seed or 0, total)) as counts:
            async for count in counts:
                ids = [self._token(job, position) for position in range(sent, count)]
                sent = count
                yield Delta(ids, Finish.LENGTH if count == total else None)

    def _token(self, job: Job, position: int) -> int:
        total = job.sampling.max_tokens
        if job.budget.opened and position == thinking_tokens(job.budget, total):
            return self.model.markers.end[0]
        return self._ids[position % PERIOD]

    async def record(self, job: Job) -> EngineRecord:
        return EMPTY_RECORD

    async def move_maximum(
        self, job: Job, target: int | None, reason: EndReason | None = None
    ) -> Move | None:
        return None

    async def health(self) -> None:
        pass

    async def warm_up(self) -> None:
        pass

    async def heartbeat(self, timeouts: StallTimeouts) -> None:
        pass

    async def kill(self) -> None:
        pass

    async def aclose(self) -> None:
        await asyncio.sleep(0)


def thinking_tokens(budget: TokenBudget, total: int) -> int:
    """Return how many of the tokens are thinking: half of them, or the maximum."""
    return total // 2 if budget.maximum is None else min(total // 2, budget.maximum)
