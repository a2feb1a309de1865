"""Judges a policy before it is used: by its estimated accuracy and tokens on held-out prompts."""

from dataclasses import dataclass

import numpy as np

from proctor.router.learning.off_policy import (
    INTERVAL,
    Contributions,
    increasing,
    mixture_line,
)
from proctor.router.model import Floats, Integers
from proctor.router.outcomes.frontier import PRICES, Frontier, Price, cheapest
from proctor.router.outcomes.model import Forecasts

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a policy gives on average.

    Attributes:
        right: the share of right answers.
        right_interval: its 95% interval.
        tokens: mean thinking tokens.
        tokens_interval: their 95% interval.
    """

    right: float
    right_interval: Interval
    tokens: float
    tokens_interval: Interval


@dataclass(frozen=True, slots=True)
class Judgement:
    """A policy, beside fixed tiers, on prompts that its forecasts had not seen.

    Attributes:
        routed: the policy.
        shipped: the costs of misclassification, which decide without an outcome model.
        fixed: each tier, if all prompts were sent to it.
        line: the share of right answers that a coin between two tiers gives at its tokens.
        gain: how much more the policy gives.
        gain_interval: its 95% interval.
    """

    routed: Estimate
    shipped: Estimate
    fixed: tuple[Estimate, ...]
    line: float
    gain: float
    gain_interval: Interval


class Judge:
    """Estimates what policies give, by graded answers and forecasts that had not seen them."""

    def __init__(self, contributions: Contributions, forecasts: Forecasts) -> None:
        """Initialize the judge.

        Args:
            contributions: of graded answers.
            forecasts: of the prompts of the same answers, which the policies choose by.
        """
        self._contributions = contributions
        self._forecasts = forecasts
        prompts, self._tiers = forecasts.right.shape
        fixed = [np.full(prompts, tier) for tier in range(self._tiers)]
        self._fixed = np.array([contributions.value(each) for each in fixed])
        self._fixed_resampled = np.array([contributions.resampled(each) for each in fixed])

    def frontier(self) -> Floats:
        """Return prices, mean tokens and accuracies, (3, F), the latter two made ascending."""
        values = np.array([self._value(price) for price in PRICES.tolist()])
        right = np.clip(increasing(values[:, 0]), 0.0, 1.0)
        return np.array([PRICES, increasing(values[:, 1]), right])

    def judge(self, price: Price, shipped: Integers) -> Judgement:
        """Compare a price of a wrong answer with fixed tiers, and with coins between two.

        Args:
            price: the price that the policy has.
            shipped: (n,), the tiers that are chosen without an outcome model.
        """
        value, resampled = self._policy(price)
        line = mixture_line(self._fixed[:, 1], self._fixed[:, 0], value[1])
        gains = [
            routed[0] - mixture_line(fixed[:, 1], fixed[:, 0], routed[1])
            for routed, fixed in zip(resampled, self._fixed_resampled.swapaxes(0, 1), strict=True)
        ]
        low, high = np.quantile(gains, INTERVAL).tolist()
        fixed = zip(self._fixed, self._fixed_resampled, strict=True)
        return Judgement(
            self._estimate(value, resampled),
            self._estimate(
                self._contributions.value(shipped), self._contributions.resampled(shipped)
            ),
            tuple(self._estimate(*each) for each in fixed),
            line,
            float(value[0]) - line,
            (low, high),
        )

    def _value(self, error_cost: float) -> Floats:
        return self._contributions.value(self._chosen(error_cost))

    def _chosen(self, error_cost: float) -> Integers:
        return cheapest(self._forecasts.right, self._forecasts.tokens, error_cost)

    def _policy(self, price: Price) -> tuple[Floats, Floats]:
        """Return accuracy and tokens at a mixed price, and resampled ones."""
        values, resampled = np.zeros(2), np.zeros_like(self._fixed_resampled[0])
        for error_cost, share in ((price.low, 1.0 - price.share), (price.high, price.share)):
            if share:
                chosen = self._chosen(error_cost)
                values += share * self._contributions.value(chosen)
                resampled += share * self._contributions.resampled(chosen)
        return values, resampled

    @staticmethod
    def _estimate(value: Floats, resampled: Floats) -> Estimate:
        low, high = np.quantile(resampled, INTERVAL, axis=0).tolist()
        right, tokens = value.tolist()
        return Estimate(right, (low[0], high[0]), tokens, (low[1], high[1]))


def to_frontier(points: Floats) -> Frontier:
    """Return the frontier of an array (3, F) of prices, tokens and accuracies."""
    prices, tokens, accuracy = points.tolist()
    return Frontier(prices, tokens, accuracy)
