"""Warms an engine up: triggers compilation and other slow first uses before clients connect."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace

from proctor.budget import BudgetError, TokenBudget
from proctor.server.engines.base import Engine, Job, Sampling
from proctor.server.engines.tool_calls import Constraint, Kind
from proctor.server.errors import UnsupportedRequest

logger = logging.getLogger(__name__)

OWNER = "warm-up"
"""The owner under which grammar checks are scheduled, see `Engine.check`."""

TEXT = "Count to three: 1, 2,"
TOKENS = 4
BATCH = 3
"""Batch size: torch compiles for one row, and once more for any larger number of rows."""

GREEDY = Sampling(max_tokens=TOKENS, temperature=0.0)
RANDOM = Sampling(max_tokens=TOKENS, temperature=1.0)
WITH_LOGPROBS = replace(GREEDY, top_logprobs=2)

SAMPLINGS = (
    GREEDY,
    RANDOM,
    replace(RANDOM, seed=1),
    WITH_LOGPROBS,
    replace(RANDOM, top_p=0.9, top_k=8),
    replace(RANDOM, min_p=0.1),
    replace(GREEDY, presence_penalty=0.1, frequency_penalty=0.1, repetition_penalty=1.1),
    replace(GREEDY, logit_bias={0: 0.1}),
    # Each uses a different structured output backend.
    replace(GREEDY, constraint=Constraint(Kind.JSON, {"type": "object"}, "response_format")),
    replace(GREEDY, constraint=Constraint(Kind.REGEX, "[0-9]+", "structured_outputs.regex")),
)
"""One for each code path of the sampler that requests can reach."""


async def warm_up(engine: Engine) -> None:
    """Generate a few tokens with each combination of parameters that a request can use.

    Combinations that the engine does not support are skipped.

    Raises:
        EngineUnavailable: if the engine does not survive it.
    """
    for rows in (1, BATCH):
        samplings = SAMPLINGS if rows == 1 else (RANDOM, WITH_LOGPROBS)
        for number, job in enumerate(_jobs(engine, samplings)):
            batch = (replace(job, id=f"{job.id}-{rows}-{row}-{number}") for row in range(rows))
            await asyncio.gather(*(_run(engine, each) for each in batch))


def _jobs(engine: Engine, samplings: tuple[Sampling, ...]) -> Iterator[Job]:
    prompt = tuple(engine.codec.encode(TEXT))
    no_thinking = TokenBudget(maximum=0, opened=False)
    with_minimum = TokenBudget(
        minimum=TOKENS - 1, maximum=TOKENS, continuation_ids=(prompt[:1],), opened=False
    )
    for sampling in samplings:
        yield Job("warm-up", prompt, sampling, no_thinking, OWNER)
    for sampling in (GREEDY, RANDOM):
        sampling = replace(sampling, max_tokens=2 * TOKENS)
        yield Job("warm-up-minimum", prompt, sampling, with_minimum, OWNER)


async def _run(engine: Engine, job: Job) -> None:
    try:
        await engine.check(job)
        async with aclosing(engine.generate(job)) as deltas:
            async for _ in deltas:
                pass
        await engine.record(job)
    except (UnsupportedRequest, BudgetError) as error:
        logger.debug("warm-up request skipped: %s", error)
    except Exception as error:
        await engine.health()
        logger.warning("a warm-up request failed: %s", error)
