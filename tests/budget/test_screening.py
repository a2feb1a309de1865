"""What is told of a row without drawing its token agrees with the sampler's distribution."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch

from proctor.budget.processors.sampling.screening import Screening, screen
from proctor.budget.processors.sampling.table import RowSampling

COLUMNS = 200
CLOSING = [3, 70, 199]

rows_of_settings = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.3, 1.0, 2.0]),
        st.sampled_from([1.0, 0.99, 0.9, 0.3]),
        st.sampled_from([COLUMNS, 1, 5, 50]),
        st.sampled_from([0.0, 0.02, 0.3]),
        st.floats(0, 1, exclude_max=True),
    ),
    min_size=1,
    max_size=6,
)


def settings_of(rows: list[tuple[float, float, int, float, float]]) -> RowSampling:
    temperature, top_p, top_k, min_p, noise = map(np.array, zip(*rows, strict=True))
    single = np.float32
    return RowSampling(
        temperature.astype(single), top_p.astype(single), top_k, min_p.astype(single), noise
    )


def closing_probability(logits: np.ndarray, settings: RowSampling) -> np.ndarray:
    """Return the probability, [rows], that the sampler draws a closing token."""
    greedy = settings.temperature == 0
    scaled = torch.tensor(logits / np.where(greedy, 1, settings.temperature)[:, None])
    probabilities = scaled.softmax(-1)
    least = probabilities.amax(-1, keepdim=True) * torch.tensor(settings.min_p)[:, None]
    scaled[probabilities < least] = -torch.inf
    scaled = apply_top_k_top_p_pytorch(
        scaled, torch.tensor(settings.top_k), torch.tensor(settings.top_p), allow_cpu_sync=True
    )
    drawn = scaled.softmax(-1)[:, CLOSING].sum(-1).numpy()
    return np.where(greedy, np.isin(logits.argmax(-1), CLOSING), drawn)


def screened(logits: np.ndarray, settings: RowSampling) -> Screening:
    rows = np.arange(len(logits))
    return screen(logits, rows, np.array([[*CLOSING, -1]] * len(rows)), settings)


@given(rows_of_settings, st.integers(0, 2**31), st.sampled_from([-20, -8, -3, 0, 3, 8, 20]))
def test_decisions_agree_with_the_distribution(
    rows: list[tuple[float, float, int, float, float]], seed: int, lead: float
) -> None:
    settings = settings_of(rows)
    logits = np.random.default_rng(seed).normal(0, 3, (len(rows), COLUMNS)).astype(np.float32)
    logits[:, CLOSING] += lead
    probability = closing_probability(logits, settings)
    attempts, masks, undecided = screened(logits, settings)
    assert not (attempts & masks | attempts & undecided | masks & undecided).any()
    assert (probability[~(attempts | masks | undecided)] == 0).all()
    assert (settings.noise[attempts] < probability[attempts] + 1e-5).all()
    assert (settings.noise[masks] >= probability[masks] - 1e-5).all()
    # Where tokens are cut off, masking the closing ones would change which.
    assert not (masks & settings.truncates(COLUMNS)).any()


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k", "min_p"),
    [(0, 1, COLUMNS, 0), (1, 1, COLUMNS, 0), (1, 0.9, COLUMNS, 0), (1, 1, 5, 0), (1, 1, 99, 0.1)],
)
def test_an_unlikely_close_is_decided_without_a_draw(
    temperature: float, top_p: float, top_k: int, min_p: float
) -> None:
    logits = np.random.default_rng(1).normal(0, 1, (1, COLUMNS)).astype(np.float32)
    logits[0, 10] = 9
    logits[0, CLOSING] = -9
    result = screened(logits, settings_of([(temperature, top_p, top_k, min_p, 0.5)]))
    assert not result.undecided.any()
    assert not result.attempts.any()


def test_a_row_without_closing_tokens_is_left_to_the_sampler() -> None:
    result = screen(
        np.zeros((1, COLUMNS), np.float32),
        np.array([0]),
        np.array([[-1]]),
        settings_of([(1, 1, COLUMNS, 0, 0)]),
    )
    assert not np.any(result)


def test_a_row_that_can_only_close_is_an_attempt() -> None:
    logits = np.full((1, COLUMNS), -np.inf, np.float32)
    logits[0, CLOSING] = 0
    (attempts, _, _) = screened(logits, settings_of([(1, 1, COLUMNS, 0, np.nextafter(1, 0))]))
    assert attempts.all()
