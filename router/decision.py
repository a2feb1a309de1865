"""Chooses the level of minimum expected cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from proctor.router.prediction import LEVELS

Row = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Costs:
    """The misclassification costs of the router.

    Too much thinking costs tokens; too little costs a correct answer. The most
    expensive mistake is to send a high prompt to none.

    Attributes:
        none: costs of a prompt of level none, when sent to none, low, medium, high.
        low: costs of a prompt of level low.
        medium: costs of a prompt of level medium.
        high: costs of a prompt of level high.

    Raises:
        ValueError: if a cost is negative or not finite, or the correct level
            does not cost 0.
    """

    none: Row = (0.0, 1.0, 1.8, 2.6)
    low: Row = (1.0, 0.0, 1.0, 1.8)
    medium: Row = (2.0, 1.0, 0.0, 1.0)
    high: Row = (6.0, 2.2, 1.0, 0.0)

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            level = LEVELS[index]
            if len(row) != len(LEVELS) or not all(0.0 <= cost < float("inf") for cost in row):
                raise ValueError(f"costs.{level} must be {len(LEVELS)} finite numbers of 0 or more")
            if row[index]:
                raise ValueError(f"costs.{level}: the cost of the correct level {level} must be 0")

    @property
    def rows(self) -> tuple[Row, Row, Row, Row]:
        """The cost matrix: the first index is the true level, the second the chosen level."""
        return (self.none, self.low, self.medium, self.high)


DEFAULT_COSTS = Costs()


def decide(probabilities: Sequence[float], costs: Costs = DEFAULT_COSTS) -> str:
    """Return the level of minimum expected cost; on a tie, the one with less thinking.

    Raises:
        ValueError: if there is not one probability for each of `LEVELS`.
    """
    expected = [
        sum(chance * cost for chance, cost in zip(probabilities, column, strict=True))
        for column in zip(*costs.rows, strict=True)
    ]
    return LEVELS[expected.index(min(expected))]
