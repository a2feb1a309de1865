"""The distribution of s1's budget forcing, which the V1 runner gives by stop, strip, resubmit."""

from random import Random

from proctor.server.engines.base import Sampling
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain
from tests.engine.resubmission import (
    Run,
    assert_same_distribution,
    in_engine,
    render_prompt,
    resubmitted,
    run_all,
)

RUNS, REFERENCE_RUNS = 32, 240
COMPARED_TOKENS = 2


def assert_greedy_law(gateway: Gateway, v1_gateway: Gateway) -> None:
    """Check that greedy continuations are those of s1."""
    greedy = [Sampling(max_tokens=400, temperature=0)]
    for steps in (2, 5):
        ours, theirs = _run(gateway, v1_gateway, steps, greedy, greedy)
        assert ours == theirs


def assert_sampled_law(gateway: Gateway, v1_gateway: Gateway) -> None:
    """Check that sampled continuations have the distribution of those of s1."""
    sampled = [Sampling(200, 1.3, 0.95, seed) for seed in range(REFERENCE_RUNS)]
    ours, theirs = _run(gateway, v1_gateway, 1, sampled[:RUNS], sampled)
    assert_same_distribution(ours, theirs, COMPARED_TOKENS)


def _run(
    gateway: Gateway,
    v1_gateway: Gateway,
    steps: int,
    ours: list[Sampling],
    theirs: list[Sampling],
) -> tuple[list[Run], list[Run]]:
    prompt = v1_gateway.run(render_prompt(v1_gateway.engine, chain(Random(steps), steps)))
    return (
        gateway.run(run_all(in_engine, gateway.engine, prompt, ours)),
        v1_gateway.run(run_all(resubmitted, v1_gateway.engine, prompt, theirs)),
    )
