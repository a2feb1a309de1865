"""The draw on the host keeps the tokens that vLLM's sampler keeps, in proportion."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch

from proctor.budget.processors.sampling.host import draw

COLUMNS = 60


def kept_by_vllm(logits: np.ndarray, top_p: float, top_k: int, min_p: float) -> np.ndarray:
    """Return the probabilities, [vocabulary], that vLLM's sampler draws from."""
    scaled = torch.tensor(logits)[None]
    probabilities = scaled.softmax(-1)
    scaled[probabilities < probabilities.max() * min_p] = -torch.inf
    scaled = apply_top_k_top_p_pytorch(
        scaled, torch.tensor([top_k]), torch.tensor([top_p]), allow_cpu_sync=True
    )
    kept: np.ndarray = scaled.softmax(-1)[0].numpy()
    return kept


@given(
    st.integers(0, 2**31),
    st.sampled_from([0.3, 1.0, 2.0]),
    st.sampled_from([1.0, 0.9, 0.4, 0.01]),
    st.sampled_from([COLUMNS, 40, 3, 1]),
    st.sampled_from([0.0, 0.05, 1.0]),
)
def test_tokens_that_are_cut_off_are_drawn_again(
    seed: int, temperature: float, top_p: float, top_k: int, min_p: float
) -> None:
    logits = np.random.default_rng(seed).normal(0, 2, COLUMNS).astype(np.float32)
    kept = kept_by_vllm(logits / np.float32(temperature), top_p, top_k, min_p)
    left = kept_by_vllm(logits / np.float32(temperature), 1, top_k, min_p).astype(np.float64)
    middle = left.cumsum() - left / 2
    best = middle[logits.argmax()]
    for token in np.flatnonzero(left > 1e-5):
        drawn = draw(logits, temperature, top_p, top_k, min_p, [middle[token], best].__getitem__)
        assert drawn == (token if kept[token] else logits.argmax())


def test_a_low_top_p_ends_after_a_few_attempts() -> None:
    logits = np.zeros(COLUMNS, np.float32)
    logits[30] = 0.01
    assert draw(logits, 1, 1e-6, COLUMNS, 0, lambda _: 0.0) == 30


@pytest.mark.parametrize("top_p", [1, 0.9])
def test_a_row_without_valid_logits_gives_some_token(top_p: float) -> None:
    """As in vLLM, whose model may be broken; the worker must not stop for it."""
    logits = np.full(COLUMNS, np.nan, np.float32)
    assert 0 <= draw(logits, 1, top_p, COLUMNS, 0, lambda _: 0.5) < COLUMNS


def test_a_greedy_draw_takes_the_first_maximum() -> None:
    logits = np.array([0, 3, 1, 3], np.float32)
    assert draw(logits, 0, 0.5, 2, 0.5, [].__getitem__) == 1


@pytest.mark.parametrize("noise", [0.0, np.nextafter(1, 0)])
def test_the_ends_of_the_noise_find_tokens_with_a_probability(noise: float) -> None:
    logits = np.array([-np.inf, 1, -np.inf, 2, -np.inf], np.float32)
    assert draw(logits, 1, 1, 5, 0, lambda _: noise) == (1 if noise == 0 else 3)
