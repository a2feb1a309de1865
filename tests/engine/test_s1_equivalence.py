"""Continuations have the distribution of s1's budget forcing, which strips and resubmits."""

from random import Random

import pytest

from proctor.server.engines.base import Sampling
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain
from tests.engine.resubmission import (
    assert_same_distribution,
    in_engine,
    render_prompt,
    resubmitted,
    run_all,
)

RUNS = 250


@pytest.mark.parametrize("repetition", [None, 0.9, 1.2])
@pytest.mark.parametrize("steps", [2, 5, 8])
def test_greedy_continuations_are_identical_to_s1(
    vllm_gateway: Gateway, steps: int, repetition: float | None
) -> None:
    """Also under the repetition penalty, which counts the tokens of the prompt too."""
    prompt = vllm_gateway.run(render_prompt(vllm_gateway.engine, chain(Random(steps), steps)))
    greedy = Sampling(max_tokens=800, temperature=0, repetition_penalty=repetition)
    ours = vllm_gateway.run(run_all(in_engine, vllm_gateway.engine, prompt, [greedy]))
    theirs = vllm_gateway.run(run_all(resubmitted, vllm_gateway.engine, prompt, [greedy]))
    assert ours == theirs


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.3, 0.95)])
def test_sampled_continuations_have_the_distribution_of_s1(
    vllm_gateway: Gateway, temperature: float, top_p: float
) -> None:
    prompt = vllm_gateway.run(render_prompt(vllm_gateway.engine, chain(Random(17), 3)))
    settings = [Sampling(600, temperature, top_p, seed) for seed in range(RUNS)]
    ours = vllm_gateway.run(run_all(in_engine, vllm_gateway.engine, prompt, settings))
    theirs = vllm_gateway.run(run_all(resubmitted, vllm_gateway.engine, prompt, settings))
    assert_same_distribution(ours, theirs)
