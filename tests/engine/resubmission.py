"""s1's budget forcing by stop, strip and resubmit, to compare the engine's own with."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

from scipy.stats import chi2_contingency, ks_2samp

from proctor.budget import TokenBudget
from proctor.server.engines.base import Engine, Job, Sampling

COMPARED_TOKENS = 12
"""The number of tokens compared after a continuation."""

SIGNIFICANCE = 1e-3
"""The p-value below which two samples count as differently distributed; the seeds are fixed."""


class Run(NamedTuple):
    """The thinking of one run.

    Attributes:
        before: the number of tokens before the first attempt to close.
        after: the first tokens after its continuation.
        tokens: all thinking tokens.
    """

    before: int
    after: tuple[int, ...]
    tokens: tuple[int, ...]


async def resubmitted(
    engine: Engine, name: str, sampling: Sampling, prompt: tuple[int, ...], wait: tuple[int, ...]
) -> Run:
    """Run s1's loop once: generate up to the delimiter, strip it, append "Wait", resubmit."""
    first = await until_delimiter(engine, f"{name}-0", prompt, sampling)
    second = await until_delimiter(engine, f"{name}-1", (*prompt, *first, *wait), sampling)
    return Run(len(first), second[:COMPARED_TOKENS], (*first, *wait, *second))


async def until_delimiter(
    engine: Engine, name: str, prompt: tuple[int, ...], sampling: Sampling
) -> tuple[int, ...]:
    markers = engine.model.markers
    tokens: list[int] = []
    stream = engine.generate(Job(name, prompt, sampling, TokenBudget()))
    try:
        async for delta in stream:
            for token in delta.token_ids:
                if token in markers.eos or token == markers.end[0]:
                    return tuple(tokens)
                tokens.append(token)
    finally:
        await stream.aclose()
    return tuple(tokens)


async def in_engine(
    engine: Engine, name: str, sampling: Sampling, prompt: tuple[int, ...], wait: tuple[int, ...]
) -> Run:
    budget = TokenBudget(continuations=1, continuation_ids=(wait,))
    job = Job(name, prompt, sampling, budget)
    tokens = await thinking_of(engine, job)
    (position,) = (await engine.record(job)).attempts
    return Run(position, tokens[position + len(wait) :][:COMPARED_TOKENS], tokens)


async def thinking_of(engine: Engine, job: Job) -> tuple[int, ...]:
    tokens = [token async for delta in engine.generate(job) for token in delta.token_ids]
    return tuple(tokens[: tokens.index(engine.model.markers.end[0])])


async def run_all(
    run: Callable[..., Awaitable[Run]],
    engine: Engine,
    prompt: tuple[int, ...],
    sampling: Sequence[Sampling],
) -> list[Run]:
    """Run each sampling `in_engine`, or `resubmitted`, all at once."""
    wait = tuple(engine.codec.encode("Wait"))
    names = (f"{run.__name__}-{hash(prompt)}-{at}" for at in range(len(sampling)))
    runs = map(partial(run, engine, prompt=prompt, wait=wait), names, sampling)
    return await asyncio.gather(*runs)


async def render_prompt(engine: Engine, text: str) -> tuple[int, ...]:
    return (await engine.codec.render([{"role": "user", "content": text}], thinking=True)).ids


def assert_same_distribution(
    ours: list[Run], theirs: list[Run], compared: int = COMPARED_TOKENS
) -> None:
    """Compare where thinking was continued, its length, and `compared` tokens after it."""
    assert (
        ks_2samp([run.before for run in ours], [run.before for run in theirs]).pvalue > SIGNIFICANCE
    )
    lengths = [[len(run.tokens) for run in runs] for runs in (ours, theirs)]
    assert ks_2samp(*lengths).pvalue > SIGNIFICANCE
    assert (
        homogeneity(*([run.after[:compared] for run in runs] for runs in (ours, theirs)))
        > SIGNIFICANCE
    )


def homogeneity(one: Sequence[object], other: Sequence[object]) -> float:
    """Return the p-value of a chi-square test that both samples have one distribution."""
    counts = Counter(one), Counter(other)
    common = [kind for kind, count in (counts[0] + counts[1]).items() if count >= 10]
    assert len(common) > 1, "too few kinds to compare"
    table = [[count[kind] for kind in common] for count in counts]
    for row, sample in zip(table, (one, other), strict=True):
        row.append(len(sample) - sum(row))
    table = [row if table[0][-1] + table[1][-1] else row[:-1] for row in table]
    p_value: float = chi2_contingency(table).pvalue
    return p_value
