"""The shipped costs of misclassification, read as probabilities and tokens.

A cost matrix is a table of regrets, in units of the thinking that one level more takes. With the
tokens that a prompt of each level takes under each tier, its rows become probabilities of a wrong
answer: choosing by these at `error_cost` is choosing by the matrix. They are what an outcome model
believes before it has seen an answer.
"""

from dataclasses import dataclass

import numpy as np

from proctor.router.decision import DEFAULT_COSTS, Costs
from proctor.router.model import Floats
from proctor.router.prediction import LEVELS

MIN_ERROR, MAX_ERROR = 0.05, 0.9
"""Probabilities of a wrong answer at the least and at the greatest excess cost of a matrix."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What a cost matrix says of prompts whose level is known; L is 4 levels.

    Attributes:
        right: (L, L), the probability of a right answer: of a prompt of each level (rows) under the
            tier of each level (columns).
        tokens: (L, L), thinking tokens, in units of what one level more takes.
        error_cost: the price of a wrong answer at which choosing by `right` and `tokens` is
            choosing by the matrix, in the same unit.
    """

    right: Floats
    tokens: Floats
    error_cost: float

    @classmethod
    def of(cls, costs: Costs = DEFAULT_COSTS) -> "Prior":
        """Return the reading of a cost matrix."""
        matrix = np.array(costs.rows)
        levels = np.arange(len(LEVELS))
        # A prompt thinks as long as the tier lets it, up to its own level; beyond, the matrix
        # prices what it wastes.
        needed = levels[:, None].astype(float)
        below = levels[None, :] < levels[:, None]
        tokens = np.where(below, levels[None, :], needed + matrix)
        # The same on top of every tier of a level changes no decision, so the least error is free.
        excess = matrix + needed - tokens
        largest = max(float(excess.max()), 1.0)
        error = MIN_ERROR + excess * (MAX_ERROR - MIN_ERROR) / largest
        return cls(1.0 - error, tokens, largest / (MAX_ERROR - MIN_ERROR))
