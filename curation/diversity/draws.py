"""The few kinds of random draws that samplers make.

Each takes exactly one number of `Random.random`, the only method whose values Python promises not
to change for a seed: the same recipe chooses the same rows under every version.
"""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

Item = TypeVar("Item")


def draw_index(rng: Random, size: int) -> int:
    """Return one of the numbers below `size`, each as likely as another."""
    return int(rng.random() * size)


def draw_weighted(rng: Random, weights: Sequence[int]) -> int:
    """Return a position of `weights`, each as likely as its weight says; not all may be 0."""
    left = int(rng.random() * sum(weights))
    for position, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return position
    raise ValueError("the weights must be positive")


def draw_rank(rng: Random, size: int) -> int:
    """Return a rank below `size`, with weight 2^-rank: 0 is the likeliest.

    The ranks from r on have the share (2^-r - 2^-size) / (1 - 2^-size) of the weight, so that one
    uniform number is compared with powers of a half instead of the sums of all weights.
    """
    beyond = 1 - rng.random() * (1 - 0.5**size)  # uniform over (2^-size, 1]
    rank = 0
    while rank < size - 1 and beyond <= 0.5 ** (rank + 1):
        rank += 1
    return rank


def draw_subset(rng: Random, items: Sequence[Item], size: int) -> list[Item]:
    """Return `size` different items, each subset as likely as another."""
    left = [*items]
    for position in range(size):
        other = position + draw_index(rng, len(left) - position)
        left[position], left[other] = left[other], left[position]
    return left[:size]
