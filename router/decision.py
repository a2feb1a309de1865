"""From probabilities to a level: the one whose expected cost is least."""

from collections.abc import Sequence
from dataclasses import dataclass

from proctor.router.prediction import LEVELS

Row = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Costs:
    """What it costs to send a prompt of one level to another's tier.

    Too much thinking costs tokens; too little costs the answer. A hard prompt
    that gets no thinking at all is the dearest mistake of all.

    Attributes:
        none: costs of a prompt that is none, when sent to none, low, medium, high.
        low: of one that is low.
        medium: of one that is medium.
        high: of one that is high.

    Raises:
        ValueError: if a cost is negative or not a number, or the right level
            is not free.
    """

    none: Row = (0.0, 1.0, 1.8, 2.6)
    low: Row = (1.0, 0.0, 1.0, 1.8)
    medium: Row = (2.0, 1.0, 0.0, 1.0)
    high: Row = (6.0, 2.2, 1.0, 0.0)

    def __post_init__(self) -> None:
        for at, row in enumerate(self.rows):
            if len(row) != len(LEVELS) or not all(0.0 <= cost < float("inf") for cost in row):
                raise ValueError(f"costs.{LEVELS[at]} must be {len(LEVELS)} numbers of 0 or more")
            if row[at]:
                raise ValueError(f"costs.{LEVELS[at]}: sending it to {LEVELS[at]} must cost 0")

    @property
    def rows(self) -> tuple[Row, Row, Row, Row]:
        """The matrix: by the prompt's level, then by the level that is chosen."""
        return (self.none, self.low, self.medium, self.high)


DEFAULT_COSTS = Costs()


def decide(probabilities: Sequence[float], costs: Costs = DEFAULT_COSTS) -> str:
    """The level of least expected cost; of equals, the one with less thinking.

    Raises:
        ValueError: if there is not one probability for each of `LEVELS`.
    """
    expected = [
        sum(chance * cost for chance, cost in zip(probabilities, column, strict=True))
        for column in zip(*costs.rows, strict=True)
    ]
    return LEVELS[expected.index(min(expected))]
