"""Draws one row's token on the host, without sorting the vocabulary.

`SamplingTable.draw` has the same distribution, for all rows at once and without waiting for a
device, but sorts each row under top-p. Here a token is drawn from all that min-p and top-k leave,
and is drawn again if top-p cuts it off, which takes one sum over the row to learn (rejection
sampling). After a few attempts, which only a low top-p takes, the row is sorted. Of tokens with
equal logits, top-p keeps all or none.
"""

from collections.abc import Callable

import numpy as np

from proctor.budget.processors.sampling.table import GREEDY_BELOW

ATTEMPTS = 8
"""How often a token is drawn before the row is sorted."""


def draw(
    logits: np.ndarray,
    temperature: float,
    top_p: float,
    top_k: int,
    min_p: float,
    noise: Callable[[int], float],
) -> int:
    """Draw a token: temperature, then min-p, then top-k and top-p, as in vLLM's sampler.

    Args:
        logits: [vocabulary] float32, at least one of which is finite.
        temperature: greedy if it is below `GREEDY_BELOW`.
        top_p: above 0, at most 1.
        top_k: at least 1; the size of the vocabulary for no limit.
        min_p: 0 to 1.
        noise: returns the random number of each attempt, in [0, 1), by its number from 0.
    """
    if temperature < GREEDY_BELOW:
        return int(logits.argmax())
    scaled = logits / np.float32(temperature)
    maximum = scaled.max()
    weights = np.exp(scaled - maximum)
    if min_p > 0:
        weights[weights < min_p] = 0
    if top_k < len(weights):
        weights[weights < np.partition(weights, -top_k)[-top_k]] = 0
    cumulative = weights.cumsum(dtype=np.float64)
    for attempt in range(ATTEMPTS):
        token = _find(cumulative, noise(attempt))
        if top_p >= 1 or _sum_up_to(weights, weights[token]) > (1 - top_p) * cumulative[-1]:
            return token
    weights[weights < _least_kept(weights, top_p)] = 0
    return _find(weights.cumsum(dtype=np.float64), noise(ATTEMPTS))


def _find(cumulative: np.ndarray, noise: float) -> int:
    """Return the token, of a weight above 0, in which a fraction of the sum falls."""
    # Below the sum even after rounding.
    target = min(noise * cumulative[-1], np.nextafter(cumulative[-1], 0))
    return min(int(np.searchsorted(cumulative, target, side="right")), len(cumulative) - 1)


def _least_kept(weights: np.ndarray, top_p: float) -> np.float32:
    """Return the least weight that top-p keeps."""
    ascending = np.sort(weights)
    kept = ascending.cumsum(dtype=np.float64) > (1 - top_p) * ascending.sum(dtype=np.float64)
    kept[-1] = True
    least: np.float32 = ascending[kept.argmax()]
    return least


def _sum_up_to(weights: np.ndarray, weight: np.float32) -> float:
    """Return the sum of the weights that are at most `weight`."""
    return float(weights.sum(where=weights <= weight, dtype=np.float64))
