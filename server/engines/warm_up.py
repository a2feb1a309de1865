"""Makes an engine do once what is slow the first time, before it has clients."""

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
"""Whose its grammars are, for those whose turn is by owner."""

TEXT = "Count to three: 1, 2,"
TOKENS = 4
BATCH = 3
"""Choices side by side: torch compiles for one row, and once more for any number of them."""

GREEDY = Sampling(max_tokens=TOKENS, temperature=0.0)
DRAWN = Sampling(max_tokens=TOKENS, temperature=1.0)
SCORED = replace(GREEDY, top_logprobs=2)

SAMPLINGS = (
    GREEDY,
    DRAWN,
    replace(DRAWN, seed=1),
    SCORED,
    replace(DRAWN, top_p=0.9, top_k=8),
    replace(DRAWN, min_p=0.1),
    replace(GREEDY, presence_penalty=0.1, frequency_penalty=0.1, repetition_penalty=1.1),
    replace(GREEDY, logit_bias={0: 0.1}),
    # Each is for another of the libraries that follow grammars.
    replace(GREEDY, constraint=Constraint(Kind.JSON, {"type": "object"}, "response_format")),
    replace(GREEDY, constraint=Constraint(Kind.REGEX, "[0-9]+", "structured_outputs.regex")),
)
"""One for each part of the sampler that requests can reach."""


async def warm_up(engine: Engine) -> None:
    """Generate a few tokens in each way that a request can ask for.

    What this engine does not serve is passed over, as its requests will be refused.

    Raises:
        EngineUnavailable: if the engine does not survive it.
    """
    for rows in (1, BATCH):
        wanted = SAMPLINGS if rows == 1 else (DRAWN, SCORED)
        for number, job in enumerate(_jobs(engine, wanted)):
            named = (replace(job, id=f"{job.id}-{rows}-{row}-{number}") for row in range(rows))
            await asyncio.gather(*(_run(engine, each) for each in named))


def _jobs(engine: Engine, samplings: tuple[Sampling, ...]) -> Iterator[Job]:
    prompt = tuple(engine.codec.encode(TEXT))
    free = TokenBudget(maximum=0, opened=False)
    held = TokenBudget(
        minimum=TOKENS - 1, maximum=TOKENS, continuation_ids=(prompt[:1],), opened=False
    )
    for sampling in samplings:
        yield Job("warm-up", prompt, sampling, free)
    for sampling in (GREEDY, DRAWN):
        yield Job("warm-up-held", prompt, replace(sampling, max_tokens=2 * TOKENS), held)


async def _run(engine: Engine, job: Job) -> None:
    try:
        await engine.check(job, OWNER)
        async with aclosing(engine.generate(job)) as deltas:
            async for _ in deltas:
                pass
        await engine.attempts(job)
    except (UnsupportedRequest, BudgetError) as error:
        logger.debug("not warmed up: %s", error)
    except Exception as error:
        await engine.health()
        logger.warning("the engine failed a request of its warm-up: %s", error)
