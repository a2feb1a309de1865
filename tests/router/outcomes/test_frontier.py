"""The decision rule against every possible assignment of tiers to a few prompts."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from proctor.router.model import Floats
from proctor.router.outcomes.frontier import Frontier, Price, cheapest

TIERS = 3
ROUNDED = 1e-9

# Multiples of 1/64, so that sums are exact and ties are ties.
RIGHT = st.integers(1, 5).flatmap(
    lambda prompts: arrays(
        float, (prompts, TIERS), elements=st.integers(0, 64).map(lambda n: n / 64)
    )
)
TOKENS = arrays(float, (5, TIERS), elements=st.integers(0, 400).map(float))


def average(values: Floats, chosen: NDArray[Any]) -> float:
    return float(values[np.arange(len(values)), chosen].mean())


def exact_frontier(right: Floats, tokens: Floats) -> Frontier:
    """Return the frontier at every price at which a choice changes, and between these."""
    changes = {0.0}
    for gain, cost in zip(
        (right[:, :, None] - right[:, None, :]).ravel(),
        (tokens[:, :, None] - tokens[:, None, :]).ravel(),
        strict=True,
    ):
        if gain > 0.0 and cost > 0.0:
            changes.add(cost / gain)
    ordered = sorted(changes)
    between = [(low + high) / 2 for low, high in itertools.pairwise(ordered)]
    prices = [*sorted({*between, 0.0}), ordered[-1] + 1.0, math.inf]
    chosen = [cheapest(right, tokens, price) for price in prices]
    return Frontier(
        prices,
        [average(tokens, each) for each in chosen],
        [average(right, each) for each in chosen],
    )


def value(price: Price, right: Floats, tokens: Floats) -> tuple[float, float]:
    """Return accuracy and tokens of a mixed price."""
    low, high = (cheapest(right, tokens, each) for each in (price.low, price.high))
    accuracy, used = (
        average(values, low) * (1 - price.share) + average(values, high) * price.share
        for values in (right, tokens)
    )
    return accuracy, used


def assignments(prompts: int) -> list[Floats]:
    return [np.array(each) for each in itertools.product(range(TIERS), repeat=prompts)]


@given(RIGHT, TOKENS, st.floats(0.0, 5000.0))
def test_no_assignment_costs_less(right: Floats, tokens: Floats, error_cost: float) -> None:
    tokens = tokens[: len(right)]
    cost = error_cost * (1.0 - right) + tokens
    least = min(average(cost, each) for each in assignments(len(right)))
    chosen = cheapest(right, tokens, error_cost)
    assert average(cost, chosen) == pytest.approx(least)


@given(RIGHT, TOKENS)
def test_tokens_and_accuracy_rise_with_the_price(right: Floats, tokens: Floats) -> None:
    frontier = exact_frontier(right, tokens[: len(right)])
    assert (np.diff(frontier.tokens) >= -ROUNDED).all()
    assert (np.diff(frontier.accuracy) >= -ROUNDED).all()


@given(RIGHT, TOKENS, st.floats(0.0, 1.0))
def test_within_a_budget_no_assignment_is_more_accurate(
    right: Floats, tokens: Floats, position: float
) -> None:
    tokens = tokens[: len(right)]
    frontier = exact_frontier(right, tokens)
    low, high = frontier.tokens[0], float(tokens.max(axis=1).mean())
    budget = low + position * (high - low)

    accuracy, used = value(frontier.price_of_tokens(budget), right, tokens)

    best = max(
        average(right, each)
        for each in assignments(len(right))
        if average(tokens, each) <= budget + ROUNDED
    )
    assert used <= budget + 1e-6
    assert accuracy >= best - 1e-6


@given(RIGHT, TOKENS, st.floats(0.0, 1.0))
def test_at_an_accuracy_no_assignment_uses_fewer_tokens(
    right: Floats, tokens: Floats, position: float
) -> None:
    tokens = tokens[: len(right)]
    frontier = exact_frontier(right, tokens)
    floor = frontier.accuracy[0] + position * (frontier.accuracy[-1] - frontier.accuracy[0])

    accuracy, used = value(frontier.price_of_accuracy(floor), right, tokens)

    fewest = min(
        average(tokens, each)
        for each in assignments(len(right))
        if average(right, each) >= floor - ROUNDED
    )
    assert accuracy >= floor - 1e-6
    assert used <= fewest + 1e-6


def test_what_is_out_of_reach_gets_the_nearest_price() -> None:
    frontier = Frontier([0.0, 10.0, math.inf], [5.0, 8.0, 9.0], [0.4, 0.6, 0.7])
    assert frontier.price_of_tokens(1.0) == Price.fixed(0.0)
    assert frontier.price_of_tokens(100.0) == Price.fixed(math.inf)
    assert frontier.price_of_accuracy(0.1) == Price.fixed(0.0)
    assert frontier.price_of_accuracy(0.9) == Price.fixed(math.inf)


def test_a_price_between_two_points_is_mixed() -> None:
    frontier = Frontier([0.0, 10.0, math.inf], [5.0, 9.0, 9.0], [0.4, 0.6, 0.6])
    price = frontier.price_of_tokens(6.0)
    assert [price.low, price.high, price.share] == pytest.approx([0.0, 10.0, 0.25])
    assert [price.of(position) for position in (0.0, 0.2, 0.3)] == [10.0, 10.0, 0.0]
    assert frontier.accuracy_at(price) == pytest.approx(0.45)


def test_the_most_accurate_tier_is_the_cheapest_of_equal_ones() -> None:
    right, tokens = np.array([[0.1, 0.9, 0.9]]), np.array([[0.0, 20.0, 10.0]])
    assert cheapest(right, tokens, math.inf).tolist() == [2]
