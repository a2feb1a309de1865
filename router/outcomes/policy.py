"""Chooses a tier by an outcome model, at the operator's price of a wrong answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

import numpy as np

from proctor.router.outcomes.frontier import Frontier, Price, cheapest
from proctor.router.outcomes.model import Forecast, OutcomeModel
from proctor.router.prediction import Prediction

MIN_ROWS = 20
"""A tier with fewer answers to learn from is not chosen, except to explore it."""


class Rule(StrEnum):
    """What chose a tier."""

    COSTS = "costs"
    """The costs of misclassification: there is no outcome model."""
    ERROR_COST = "error_cost"
    """The least expected cost at the price of a wrong answer."""
    MEAN_THINKING_TOKENS = "mean_thinking_tokens"
    """The best expected accuracy within the average budget."""
    MIN_ACCURACY = "min_accuracy"
    """The fewest tokens at which the traffic is this accurate."""
    EXPLORE = "explore"
    """Chance, so that there are answers to learn from."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What the operator wants.

    Attributes:
        error_cost: the price of a wrong answer in thinking tokens, or None.
        mean_tokens: the average budget in thinking tokens, or None.
        min_accuracy: the share of right answers below which the price is raised, or None.
    """

    error_cost: float | None = None
    mean_tokens: float | None = None
    min_accuracy: float | None = None

    def price(self, frontier: Frontier) -> tuple[Price, Rule]:
        """Return the price of a wrong answer, and the setting that it is due to.

        The floor of accuracy takes precedence over the average budget.
        """
        if self.error_cost is not None:
            price, rule = Price.fixed(self.error_cost), Rule.ERROR_COST
        elif self.mean_tokens is not None:
            price, rule = frontier.price_of_tokens(self.mean_tokens), Rule.MEAN_THINKING_TOKENS
        else:
            price, rule = Price.fixed(frontier.error_costs[0]), Rule.MIN_ACCURACY
        floor = self.min_accuracy
        if floor is not None and frontier.accuracy_at(price) < floor:
            return frontier.price_of_accuracy(floor), Rule.MIN_ACCURACY
        return price, rule


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen tier.

    Attributes:
        tier: its name.
        rule: what chose it.
        error_cost: the price of a wrong answer that applied, or None without a model.
        tiers: the names of the tiers that the forecast is of.
        forecast: what the model expects of each tier, or None without a model.
    """

    tier: str
    rule: Rule
    error_cost: float | None = None
    tiers: tuple[str, ...] = ()
    forecast: Forecast | None = None


class Policy:
    """Chooses tiers by an outcome model."""

    def __init__(self, model: OutcomeModel, objective: Objective) -> None:
        self._model = model
        self._tiers = tuple(model.tiers.tolist())
        self._known = model.rows >= MIN_ROWS
        frontier = Frontier(
            model.error_costs.tolist(), model.mean_tokens.tolist(), model.accuracy.tolist()
        )
        self._price, self._rule = objective.price(frontier)

    def choose(self, prediction: Prediction, position: float) -> Choice:
        """Choose a tier for a prompt.

        Args:
            prediction: the classifier's prediction for the prompt.
            position: a number in [0, 1) that is the same for equal prompts, and uniform over all.

        Raises:
            ModelError: if the model was learned with the features of another classifier.
        """
        forecast = self._model.forecast(prediction)
        error_cost = self._price.of(position)
        right = np.where(self._known, forecast.right, -1.0)
        tokens = np.where(self._known, forecast.tokens, np.inf)
        index = int(cheapest(right[None, :], tokens[None, :], error_cost)[0])
        return Choice(self._tiers[index], self._rule, error_cost, self._tiers, forecast)


def positions(text: str) -> tuple[float, float, float]:
    """Return three numbers in [0, 1) that depend on a text only, and are uniform over texts."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
    first, second, third = (
        int.from_bytes(digest[start : start + 4], "little") / 2**32 for start in (0, 4, 8)
    )
    return first, second, third


def explored(tiers: Sequence[str], chosen: str, share: float, draw: float, pick: float) -> str:
    """Return the tier to try: with the probability `share`, another one than the chosen.

    Args:
        tiers: the tiers to choose from.
        chosen: the tier that the policy has chosen.
        share: the share of prompts that explore.
        draw: a number in [0, 1), uniform over prompts.
        pick: another one, independent of it.
    """
    others = [tier for tier in tiers if tier != chosen]
    if draw >= share or not others:
        return chosen
    return others[int(pick * len(others))]
