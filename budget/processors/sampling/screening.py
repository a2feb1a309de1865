"""Tells which rows can close their thinking with their next token, mostly without drawing it.

A row under a minimum must not close its thinking, and an attempt to is replaced. Drawing the
token to learn whether it is one costs a sort of the vocabulary under top-p. But only the
probability of the closing tokens matters, and it is mostly negligible:

- Without top-k, top-p and min-p, a random number below that probability decides that the token is
  an attempt. Otherwise the closing tokens are masked, and the sampler's distribution over the
  other tokens is the conditional one.
- With any of them, the sampler never draws the closing tokens if it cuts them off. Bounds from
  the maxima of groups of columns prove that without a sort. Masking the tokens would not do:
  top-p would then keep others than before.

The remaining rows are undecided: their tokens have to be drawn.
"""

from typing import NamedTuple

import numpy as np

from proctor.budget.processors.sampling.table import GREEDY_BELOW, RowSampling

GROUP = 64
"""The number of columns in a group."""

MARGIN = 1e-2
"""Margin of the bounds, for the rounding of the sampler's quotients and cumulative sums."""


class Screening(NamedTuple):
    """What is known of the next tokens of some rows; each array is [rows] bool.

    In rows where none holds, the sampler's token is not an attempt.

    Attributes:
        attempts: the token is an attempt to close.
        masks: the token is not an attempt, if the sampler finds the closing tokens masked.
        undecided: the token has to be drawn.
    """

    attempts: np.ndarray
    masks: np.ndarray
    undecided: np.ndarray


def screen(
    logits: np.ndarray, rows: np.ndarray, closing: np.ndarray, sampling: RowSampling
) -> Screening:
    """Decide for each row whether its next token is an attempt to close, where that is cheap.

    Args:
        logits: [_, vocabulary] float32, before temperature.
        rows: [rows] int64; the indices of the rows in `logits`.
        closing: [rows, width] int64; the closing tokens of each row, padded with -1.
        sampling: the settings and the random numbers of the rows.
    """
    closing_logits = np.where(closing < 0, -np.inf, logits[rows[:, None], closing])
    highest = closing_logits.max(axis=1)
    maxima = _group_maxima(logits, rows)
    maximum = maxima.max(axis=1)
    greedy = sampling.temperature < GREEDY_BELOW
    scale = np.where(greedy, 1.0, sampling.temperature)[:, None]
    with np.errstate(invalid="ignore"):  # where all tokens are masked
        gaps = (closing_logits - maximum[:, None]) / scale
        mass = np.exp(gaps).sum(axis=1)
        is_cut = _is_cut(maxima, maximum, highest, scale, logits.shape[1], sampling)
    truncates = sampling.truncates(logits.shape[1])
    never = (highest == -np.inf) | np.where(greedy, highest < maximum, truncates & is_cut)
    draws = greedy | truncates
    decided = ~never & ~draws
    # The sum over the whole row is at least the weight of its maximum, which is 1.
    attempts = decided & (sampling.noise < mass)
    for row in np.flatnonzero(attempts):
        weights = np.exp((logits[rows[row]] - maximum[row]) / scale[row], dtype=np.float64)
        weights[closing[row][closing[row] >= 0]] = 0
        attempts[row] = sampling.noise[row] * (mass[row] + weights.sum()) < mass[row]
    return Screening(attempts, decided & ~attempts, ~never & draws)


def _group_maxima(logits: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the maxima of groups of columns, then the columns that fill no group.

    A group's columns lie apart, so that NumPy reduces whole vectors.

    Returns:
        [rows, groups + rest] float32.
    """
    columns = logits.shape[1]
    groups = columns // GROUP
    grouped = groups * GROUP
    maxima = np.empty((len(rows), groups + columns - grouped), dtype=np.float32)
    for at, row in enumerate(rows):
        logits[row, :grouped].reshape(GROUP, groups).max(axis=0, out=maxima[at, :groups])
    maxima[:, groups:] = logits[rows, grouped:]
    return maxima


def _is_cut(
    maxima: np.ndarray,
    maximum: np.ndarray,
    highest: np.ndarray,
    scale: np.ndarray,
    columns: int,
    sampling: RowSampling,
) -> np.ndarray:
    """Return whether the closing tokens are cut off for certain by top-k, top-p or min-p.

    Args:
        maxima: [rows, groups + rest] float32, see `_group_maxima`.
        maximum: [rows] float32; the highest logit.
        highest: [rows] float32; the highest logit of a closing token.
        scale: [rows, 1] float32; the temperature.
        columns: the size of the vocabulary.
        sampling: the settings of the rows.

    Returns:
        [rows] bool.
    """
    with np.errstate(divide="ignore"):
        below_min_p = (highest - maximum) / scale[:, 0] < np.log(sampling.min_p) - MARGIN
    # Logits that are close may be equal once the sampler has divided them by the temperature.
    is_higher = (maxima - highest[:, None]) / scale > MARGIN
    below_top_k = is_higher.sum(axis=1) >= sampling.top_k
    # Top-p removes the least likely tokens, as long as their sum is at most 1 - p. It is applied
    # to what min-p and top-k leave, of which the maximum is known to be a part.
    sizes = np.where(np.arange(maxima.shape[1]) < columns // GROUP, GROUP, 1)
    at_most = np.exp((np.minimum(maxima, highest[:, None]) - maximum[:, None]) / scale)
    alone = (sampling.min_p == 0) & (sampling.top_k >= columns)
    others = np.exp((maxima - maximum[:, None]) / scale).sum(axis=1)
    kept = np.where(alone, others, 1.0)
    below_top_p = at_most @ sizes < (1 - sampling.top_p) * kept * (1 - MARGIN)
    return below_min_p | below_top_k | below_top_p
