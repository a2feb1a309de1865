"""Continuations have the distribution of s1's budget forcing, which strips and resubmits."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import pytest
from scipy.stats import chi2_contingency, ks_2samp

from proctor.budget import TokenBudget
from proctor.server.engines.base import Engine, Job, Sampling
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain

RUNS = 250
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
    engine: Engine, name: str, prompt: tuple[int, ...], sampling: Sampling, wait: tuple[int, ...]
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
    engine: Engine, name: str, prompt: tuple[int, ...], sampling: Sampling, wait: tuple[int, ...]
) -> Run:
    budget = TokenBudget(continuations=1, continuation_ids=(wait,))
    job = Job(name, prompt, sampling, budget)
    tokens = await thinking_of(engine, job)
    (position,) = await engine.attempts(job)
    return Run(position, tokens[position + len(wait) :][:COMPARED_TOKENS], tokens)


async def thinking_of(engine: Engine, job: Job) -> tuple[int, ...]:
    tokens = [token async for delta in engine.generate(job) for token in delta.token_ids]
    return tuple(tokens[: tokens.index(engine.model.markers.end[0])])


async def run_both(
    engine: Engine, prompt: tuple[int, ...], sampling: Sequence[Sampling]
) -> tuple[list[Run], list[Run]]:
    wait = tuple(engine.codec.encode("Wait"))
    ours = [
        in_engine(engine, f"law-{hash(prompt)}-{at}-e", prompt, params, wait)
        for at, params in enumerate(sampling)
    ]
    theirs = [
        resubmitted(engine, f"law-{hash(prompt)}-{at}-r", prompt, params, wait)
        for at, params in enumerate(sampling)
    ]
    done = await asyncio.gather(*ours, *theirs)
    return done[: len(ours)], done[len(ours) :]


async def render_prompt(engine: Engine, text: str) -> tuple[int, ...]:
    return (await engine.codec.render([{"role": "user", "content": text}], thinking=True)).ids


@pytest.mark.parametrize("repetition", [None, 0.9, 1.2])
@pytest.mark.parametrize("steps", [2, 5, 8])
def test_greedy_continuations_are_identical_to_s1(
    vllm_gateway: Gateway, steps: int, repetition: float | None
) -> None:
    """Also under the repetition penalty, which counts the tokens of the prompt too."""
    prompt = vllm_gateway.run(render_prompt(vllm_gateway.engine, chain(Random(steps), steps)))
    greedy = Sampling(max_tokens=800, temperature=0, repetition_penalty=repetition)
    (ours,), (theirs,) = vllm_gateway.run(run_both(vllm_gateway.engine, prompt, [greedy]))
    assert ours == theirs


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.3, 0.95)])
def test_sampled_continuations_have_the_distribution_of_s1(
    vllm_gateway: Gateway, temperature: float, top_p: float
) -> None:
    prompt = vllm_gateway.run(render_prompt(vllm_gateway.engine, chain(Random(17), 3)))
    settings = [Sampling(600, temperature, top_p, seed) for seed in range(RUNS)]
    ours, theirs = vllm_gateway.run(run_both(vllm_gateway.engine, prompt, settings))

    assert (
        ks_2samp([run.before for run in ours], [run.before for run in theirs]).pvalue > SIGNIFICANCE
    )
    lengths = [[len(run.tokens) for run in runs] for runs in (ours, theirs)]
    assert ks_2samp(*lengths).pvalue > SIGNIFICANCE
    assert homogeneity([run.after for run in ours], [run.after for run in theirs]) > SIGNIFICANCE


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
