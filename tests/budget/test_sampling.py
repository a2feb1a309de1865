"""The draws of `SamplingTable` follow the distribution of vLLM's sampler."""

import numpy as np
import pytest
import torch
from scipy import stats
from vllm import SamplingParams
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

from proctor.budget.processors.sampling.table import BLOCK, SamplingTable, uniform

VOCABULARY = 24
DRAWS = 20_000


def expected_distribution(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Return the probabilities after temperature, min-p, top-k and top-p, as vLLM documents."""
    scaled = (logits / params.temperature)[None]
    probabilities = scaled.softmax(-1)
    scaled[probabilities < params.min_p * probabilities.max()] = -torch.inf
    k = torch.tensor([params.top_k if params.top_k > 0 else VOCABULARY])
    return apply_top_k_top_p(scaled, k, torch.tensor([params.top_p])).softmax(-1)[0]


def test_draws_follow_the_distribution_of_the_settings() -> None:
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1))
    settings = [
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=0.6, top_p=0.9),
        SamplingParams(temperature=1.3, top_k=7),
        SamplingParams(temperature=1.0, min_p=0.1),
        SamplingParams(temperature=0.8, top_p=0.8, top_k=10, min_p=0.02),
    ]
    table = SamplingTable(len(settings), VOCABULARY)
    for slot, params in enumerate(settings):
        table.load(slot, params, seed=12345 + slot)
        slots = np.full(DRAWS, slot)
        drawn = table.draw(logits.repeat(DRAWS, 1), slots, torch.arange(DRAWS))
        counts = drawn.bincount(minlength=VOCABULARY)
        expected = expected_distribution(logits.clone(), params).double()
        possible = expected > 0
        assert not counts[~possible].any()
        share = expected[possible] / expected[possible].sum()
        assert stats.chisquare(counts[possible], share * DRAWS).pvalue > 1e-4


@pytest.mark.parametrize("vocabulary", [VOCABULARY, BLOCK, 5 * BLOCK, 5 * BLOCK + 7])
def test_a_greedy_row_takes_the_argmax_and_the_first_of_equals(vocabulary: int) -> None:
    table = SamplingTable(1, vocabulary)
    table.load(0, SamplingParams(temperature=0), seed=1)
    logits = torch.randint(-9, 9, (500, vocabulary), generator=torch.Generator().manual_seed(2))
    logits = logits.float().masked_fill(logits > 7, -torch.inf)
    drawn = table.draw(logits, np.zeros(500, dtype=np.int64), torch.arange(500))
    assert drawn.equal(logits.argmax(-1))


@pytest.mark.parametrize("vocabulary", [VOCABULARY, BLOCK, 5 * BLOCK, 5 * BLOCK + 7])
def test_draws_agree_with_the_cumulative_sum(vocabulary: int) -> None:
    table = SamplingTable(1, vocabulary)
    table.load(0, SamplingParams(temperature=1), seed=3)
    # Exact in float32, and most of them 0: every sum is the same in any order.
    random = torch.randint(0, 4, (2000, vocabulary), generator=torch.Generator().manual_seed(4))
    weights = torch.where(random == 0, 2.0, 0.0)
    weights[:, -1] = torch.where(weights.sum(-1) == 0, 2.0, weights[:, -1])
    positions = torch.arange(2000)
    drawn = table.draw(weights.log(), np.zeros(2000, dtype=np.int64), positions)
    share = weights.cumsum(-1) / weights.sum(-1, keepdim=True)
    noise = uniform(torch.tensor(3), positions)
    expected = (share.double() <= noise[:, None]).sum(-1)
    near = ((share.double() - noise[:, None]).abs() < 1e-5).any(-1)
    assert drawn[~near].equal(expected[~near])
    assert weights.gather(-1, drawn[:, None]).all()


def test_the_noise_is_uniform_and_depends_only_on_seed_and_position() -> None:
    seeds = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63)]).repeat_interleave(2000)
    positions = torch.arange(2000).repeat(5)
    noise = uniform(seeds, positions)
    assert noise.equal(uniform(seeds, positions))
    assert noise.min() >= 0
    assert noise.max() < 1
    assert stats.kstest(noise.numpy(), "uniform").pvalue > 1e-4
    assert len(noise.unique()) == len(noise)
