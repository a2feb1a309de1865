"""Asks a model for the answer that it would give now."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

from proctor.budget import TokenBudget
from proctor.server.config.thinking.early_exit import EarlyExit, Method
from proctor.server.engines.base import Engine, Job, Sampling, TokenLogprob

TOP_LOGPROBS = 20
"""How many log probabilities a probe requests, the maximum of vLLM's default configuration."""


def probe_job(job: Job, tokens: Sequence[int], early_exit: EarlyExit, engine: Engine) -> Job:
    """Return a job that begins the answer to a prompt after some of its thinking.

    Its prompt is in the engine's prefix cache, but for the end marker and the opening.

    Args:
        job: the job whose answer is to be tried.
        tokens: its tokens so far, which end inside the thinking.
        early_exit: how to recognize a settled answer.
        engine: the engine of the job.
    """
    markers = engine.model.markers
    opening = engine.codec.encode(early_exit.opening) if early_exit.opening else ()
    top_logprobs = TOP_LOGPROBS if early_exit.method is Method.ENTROPY else None
    return replace(
        job,
        id=f"{job.id}-probe-{len(tokens)}",
        prompt_ids=(*job.prompt_ids, *tokens, *markers.end, *opening),
        sampling=Sampling(early_exit.probe_tokens, temperature=0.0, top_logprobs=top_logprobs),
        budget=TokenBudget(maximum=0, opened=False),
        moved_for="",
        early_exit=None,
        probe_allowance=0,
    )


class Probe:
    """A request for the beginning of the answer.

    Attributes:
        tokens: what was generated so far.
        logprobs: the log probabilities of these tokens, with the method `entropy`.
    """

    def __init__(
        self, engine: Engine, job: Job, prefix: Sequence[int], early_exit: EarlyExit
    ) -> None:
        """Create a probe; `run` generates it.

        Args:
            engine: the engine of the job.
            job: the job whose answer is to be tried.
            prefix: its tokens so far, which end inside the thinking.
            early_exit: how to recognize a settled answer.
        """
        self._engine = engine
        self._job = probe_job(job, prefix, early_exit, engine)
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprob] = []

    @property
    def fits(self) -> bool:
        """Whether the context has room for it."""
        length = len(self._job.prompt_ids) + self._job.sampling.max_tokens
        return length <= self._engine.model.context_length

    @property
    def answer(self) -> str:
        """The text of the tokens, without end-of-turn tokens."""
        eos = self._engine.model.markers.eos
        return self._engine.codec.decode([token for token in self.tokens if token not in eos])

    async def run(self) -> None:
        """Generate the probe.

        Raises:
            EngineUnavailable: if the engine cannot continue.
        """
        async with aclosing(self._engine.generate(self._job)) as deltas:
            async for delta in deltas:
                self.tokens += delta.token_ids
                self.logprobs += delta.logprobs
        await self._engine.record(self._job)
