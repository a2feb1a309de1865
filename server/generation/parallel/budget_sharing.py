"""Moves the maxima of running chains, so that they share their thinking tokens."""

import asyncio
import logging
from collections.abc import Sequence

from proctor.server.engines.base import Engine, Job
from proctor.server.errors import EngineUnavailable
from proctor.server.generation.base import ParallelPlan, RunningChain
from proctor.server.generation.parallel.shared_budget import SharedBudget

logger = logging.getLogger(__name__)


class BudgetSharing:
    """Grants the thinking tokens that chains do not use to those that still think.

    A maximum is only counted as moved when the engine has moved it. Chains do not wait for that.
    """

    def __init__(
        self,
        engine: Engine,
        jobs: Sequence[Job],
        chains: Sequence[RunningChain],
        plan: ParallelPlan,
    ) -> None:
        """Share a budget among chains; close it when they have ended.

        Args:
            engine: generates the chains.
            jobs: their jobs.
            chains: the chains.
            plan: the budget.
        """
        self._engine = engine
        self._jobs = jobs
        self._chains = chains
        self._budget = SharedBudget(plan.thinking_tokens, len(jobs), plan.cap)
        self._answering: set[int] = set()
        self._to_lower: set[int] = set()
        self._ended: set[int] = set()
        self._task: asyncio.Task[None] | None = None

    def note_answer(self, chain: int) -> None:
        """Note that a chain has begun its answer. It does not think again."""
        if chain not in self._answering and self._jobs[chain].moved_for:
            self._answering.add(chain)
            self._to_lower.add(chain)
            self._budget.close(chain)
            self._start()

    def note_end(self, chain: int, thinking_tokens: int) -> None:
        """Note that a chain has ended, and how many thinking tokens it has used."""
        self._ended.add(chain)
        self._budget.lower(chain, thinking_tokens)
        self._start()

    async def aclose(self) -> None:
        """Move no more."""
        if self._task is None:
            return
        self._task.cancel()
        (ended,) = await asyncio.gather(self._task, return_exceptions=True)
        if isinstance(ended, Exception):
            logger.error("the chains of a request cannot share tokens", exc_info=ended)

    def _start(self) -> None:
        is_running = self._task is not None and not self._task.done()
        if not is_running and any(job.moved_for for job in self._jobs):
            self._task = asyncio.create_task(self._share())

    async def _share(self) -> None:
        while True:
            answering, self._to_lower = self._to_lower - self._ended, set()
            await asyncio.gather(*map(self._lower, answering))
            for index, chain in enumerate(self._chains):
                if chain.is_settled:
                    self._budget.close(index)
            before, granted = [*self._budget.maxima], self._budget.grant()
            if not granted and not self._to_lower:
                return
            moves = (self._raise(chain, granted[chain], before[chain]) for chain in granted)
            await asyncio.gather(*moves)

    async def _lower(self, chain: int) -> None:
        """Take back what a chain has not used, now that it answers."""
        job = self._jobs[chain]
        maximum = await self._move(chain, 0)
        if maximum is not None and chain not in self._ended:
            self._budget.lower(chain, maximum + job.probe_allowance)

    async def _raise(self, chain: int, maximum: int, before: int) -> None:
        """Raise the maximum of a chain, or take it back if the chain does not think any more."""
        moved = await self._move(chain, maximum - self._jobs[chain].probe_allowance)
        if moved is None and chain not in self._ended:
            self._budget.lower(chain, before)

    async def _move(self, chain: int, target: int) -> int | None:
        """Move the maximum of a chain in the engine, and return it, or None if it stays."""
        try:
            move = await self._engine.move_maximum(self._jobs[chain], target)
        except EngineUnavailable as error:
            # It may have moved. The chain fails by itself if the engine is lost.
            logger.info("the maximum of a chain cannot be moved: %s", error)
            return target if target else None
        return None if move is None else move.maximum
