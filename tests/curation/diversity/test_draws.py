"""The draws: one uniform number each, with the right probabilities."""

from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.curation.diversity.draws import draw_index, draw_rank, draw_subset, draw_weighted

GRID = 512


class Fixed(Random):
    """A source of one number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self._number = number

    def random(self) -> float:
        return self._number


def over_grid(draw: object, *arguments: object) -> Counter[int]:
    """Return how often each value is drawn over evenly spaced numbers in [0, 1)."""
    assert callable(draw)
    return Counter(draw(Fixed(number / GRID), *arguments) for number in range(GRID))


@given(st.integers(1, 40))
def test_ranks_have_the_weights_of_powers_of_a_half(size: int) -> None:
    weights = 0.5 ** np.arange(size)
    expected = GRID * weights / weights.sum()
    drawn = over_grid(draw_rank, size)

    assert set(drawn) <= set(range(size))
    assert all(abs(drawn[rank] - expected[rank]) <= 1 for rank in range(size))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any))
def test_positions_have_their_weights(weights: list[int]) -> None:
    drawn = over_grid(draw_weighted, weights)

    for position, weight in enumerate(weights):
        assert abs(drawn[position] - GRID * weight / sum(weights)) <= 1
        assert weight or not drawn[position]


def test_positions_need_a_weight() -> None:
    with pytest.raises(ValueError, match="positive"):
        draw_weighted(Random(0), [0, 0])


def test_the_largest_number_below_1_is_in_range() -> None:
    nearly_one = Fixed(1 - 2**-53)
    assert draw_index(nearly_one, 7) == 6
    assert draw_weighted(nearly_one, [1, 3]) == 1
    assert draw_rank(nearly_one, 1) == 0
    assert draw_rank(nearly_one, 8) == 7
    assert draw_rank(nearly_one, 10_000) == 53  # a double cannot tell more apart


@given(st.integers(0, 8), st.integers(0, 8), st.integers())
def test_subsets_have_different_items_of_the_whole(size: int, more: int, seed: int) -> None:
    items = [*range(size + more)]
    drawn = draw_subset(Random(seed), items, size)

    assert len(drawn) == len(set(drawn)) == size
    assert set(drawn) <= set(items) == set(range(size + more))


def test_subsets_are_equally_likely() -> None:
    rng = Random(0)
    drawn = Counter(tuple(sorted(draw_subset(rng, "abcd", 2))) for _ in range(6000))

    assert len(drawn) == 6
    assert all(abs(count - 1000) < 5 * 1000**0.5 for count in drawn.values())
