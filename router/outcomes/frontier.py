"""Average budgets and accuracies as prices of a wrong answer.

Choosing for each prompt the tier of the least `error_cost · P(wrong) + tokens` gives, for every
price, the best accuracy at its average tokens: the price is the inverse of a Lagrange multiplier.
A frontier tabulates both over a sample of the traffic.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proctor.router.model import Floats, Integers

PRICES = np.concatenate([[0.0], np.geomspace(1.0, 1e6, 121), [math.inf]])
"""Tokens that a wrong answer may cost, as tabulated."""


def cheapest(right: Floats, tokens: Floats, error_cost: float) -> Integers:
    """Return for each of n prompts the tier of the least expected cost, of shape (n,).

    On a tie, it is the first one, which thinks least.

    Args:
        right: (n, K), the probability of a right answer under each tier.
        tokens: (n, K), expected tokens under each tier.
        error_cost: the price of a wrong answer in tokens; infinite for the most accurate tier.
    """
    if math.isinf(error_cost):
        # Of the most accurate tiers the one with the fewest tokens.
        best = right >= right.max(axis=1, keepdims=True)
        return np.asarray(np.where(best, tokens, math.inf).argmin(axis=1))
    return np.asarray((error_cost * (1.0 - right) + tokens).argmin(axis=1))


@dataclass(frozen=True, slots=True)
class Price:
    """A price of a wrong answer, mixed of two.

    An average between two points of a frontier is reached by applying the higher price to a share
    of the prompts.

    Attributes:
        low: the lower price, in tokens.
        high: the higher price.
        share: the share of prompts to which the higher one applies, from 0 to 1.
    """

    low: float
    high: float
    share: float

    @classmethod
    def fixed(cls, error_cost: float) -> "Price":
        """Return a price that is the same for all prompts."""
        return cls(error_cost, error_cost, 0.0)

    def of(self, position: float) -> float:
        """Return the price for a prompt, by its position among all prompts, in [0, 1)."""
        return self.high if position < self.share else self.low


@dataclass(frozen=True, slots=True)
class Frontier:
    """What the traffic would use and get at each price of a wrong answer.

    Attributes:
        error_costs: ascending prices, in tokens.
        tokens: mean tokens at each price, ascending.
        accuracy: the share of right answers at each price, ascending.
    """

    error_costs: Sequence[float]
    tokens: Sequence[float]
    accuracy: Sequence[float]

    def price_of_tokens(self, mean_tokens: float) -> Price:
        """Return the highest price at which the traffic uses at most this many tokens on average.

        It is the lowest price of all if even that uses more.
        """
        above = bisect_right(self.tokens, mean_tokens)
        return self._between(above, self.tokens, mean_tokens)

    def price_of_accuracy(self, accuracy: float) -> Price:
        """Return the lowest price at which the traffic is at least this accurate.

        It is the highest price of all if even that is less accurate.
        """
        reached = bisect_left(self.accuracy, accuracy)
        return self._between(reached, self.accuracy, accuracy)

    def accuracy_at(self, price: Price) -> float:
        """Return the share of right answers at a price."""
        low, high = (
            self.accuracy[max(bisect_right(self.error_costs, each) - 1, 0)]
            for each in (price.low, price.high)
        )
        return low + (high - low) * price.share

    def _between(self, index: int, values: Sequence[float], value: float) -> Price:
        """Return the price at which `values` is `value`, between the points before and at index."""
        if index == 0:
            return Price.fixed(self.error_costs[0])
        if index == len(values):
            return Price.fixed(self.error_costs[-1])
        below, above = values[index - 1], values[index]
        share = (value - below) / (above - below)
        return Price(self.error_costs[index - 1], self.error_costs[index], share)
