"""Probes a running choice, and ends its thinking once the answer is settled."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from proctor.budget import EndReason
from proctor.server.channels.splitter import ChannelSplitter
from proctor.server.config.thinking.early_exit import EarlyExit
from proctor.server.engines.base import Engine, Job
from proctor.server.errors import EngineUnavailable
from proctor.server.generation.early_exit.probe import Probe
from proctor.server.generation.early_exit.verdicts import Verdict

logger = logging.getLogger(__name__)

SpareSlot = Callable[[], AbstractContextManager[bool]]
"""Takes one of the slots for running choices, if nobody waits for it, and yields whether it did."""


class EarlyExitMonitor:
    """Probes a choice at the ends of sentences, one probe at a time.

    The probes run beside the choice, which does not wait for them. There is none while the engine
    has no spare slot, so that they give way to requests.

    Attributes:
        probe_tokens: how many tokens the probes have generated.
    """

    def __init__(
        self, early_exit: EarlyExit, engine: Engine, job: Job, spare_slot: SpareSlot
    ) -> None:
        """Create a monitor; close it when the choice has left the engine.

        Args:
            early_exit: how to recognize a settled answer.
            engine: generates the choice and its probes.
            job: the choice.
            spare_slot: takes a slot for a probe.
        """
        self._early_exit = early_exit
        self._engine = engine
        self._job = job
        self._spare_slot = spare_slot
        self._verdict = Verdict(early_exit)
        self._probed_at = 0
        self._has_failed = False
        self._task: asyncio.Task[None] | None = None
        self.probe_tokens = 0

    @property
    def is_settled(self) -> bool:
        """Whether the answer is settled, so that the thinking ends."""
        return self._verdict.settled

    def push(self, channels: ChannelSplitter) -> None:
        """Follow the choice, after its splitter has taken more tokens."""
        end = channels.last_sentence
        if end is None or not self._is_due(end.thinking_tokens):
            return
        self._probed_at = end.thinking_tokens
        self._task = asyncio.create_task(self._probe(channels.tokens[: end.tokens]))

    async def aclose(self) -> None:
        """Abort a running probe."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])

    def _is_due(self, thinking_tokens: int) -> bool:
        is_idle = self._task is None or self._task.done()
        left = self._job.probe_allowance - self.probe_tokens
        return (
            is_idle
            and not self._has_failed
            and not self._verdict.settled
            and thinking_tokens - self._probed_at >= self._early_exit.every
            and left >= self._early_exit.probe_tokens
        )

    async def _probe(self, prefix: Sequence[int]) -> None:
        probe = Probe(self._engine, self._job, prefix, self._early_exit)
        if not probe.fits:
            return
        try:
            with self._spare_slot() as has_slot:
                if not has_slot:
                    return
                try:
                    await probe.run()
                finally:
                    self.probe_tokens += len(probe.tokens)
            self._verdict.push(probe.answer, probe.logprobs)
            if self._verdict.settled:
                await self._engine.move_maximum(self._job, None, EndReason.SETTLED)
        except EngineUnavailable as error:
            # The choice fails by itself if the engine is lost; one probe is no loss.
            logger.info("a probe failed: %s", error)
        except Exception:
            logger.exception("a probe failed, and its request has no more of them")
            self._has_failed = True
