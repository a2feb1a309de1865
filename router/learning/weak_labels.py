"""What the ending of an answer that nobody graded says about whether it is right.

A weak label is a probability: the share of right ones among the graded answers of the same tier
that ended in the same way, or a guess until there are some.
"""

import numpy as np

from proctor.router.learning.answers import Answers, Ending
from proctor.router.model import Floats

GUESSES = {
    Ending.NATURAL: 0.7,
    Ending.SETTLED: 0.8,
    Ending.UNSURE: 0.3,
    Ending.CAPPED: 0.4,
    Ending.LOOP: 0.2,
    Ending.TRUNCATED: 0.1,
    Ending.SPILLED: 0.3,
    Ending.REPEATED: 0.35,
}
"""The share of right answers, as long as none is graded. Other endings say nothing."""

GUESS_ROWS = 10.0
"""Graded answers that a guess counts as much as, and those of all tiers in one tier's share."""

WEIGHT = 0.1
"""The weight of a weak label in relation to a grade."""

MAX_UNGRADED = 20.0
"""The total weight of a tier's weak labels is at most this, or that of its grades if greater: many
answers that say little must not outvote a few that say much."""


def labels(answers: Answers, weights: Floats) -> tuple[Floats, Floats]:
    """Return the target of each answer and the factor on its weight, both (n,).

    Grades keep their weight; answers without grade and hint have a factor of 0.

    Args:
        answers: the answers.
        weights: (n,), their weights by age.
    """
    graded = answers.graded
    target, factor = np.where(graded, answers.score, 0.5), graded.astype(float)
    for ending, guess in GUESSES.items():
        same = answers.ending == ending.value
        overall = _share(answers, weights, same & graded, guess)
        for tier in range(len(answers.tiers)):
            of_tier = same & (answers.tier == tier)
            target[of_tier & ~graded] = _share(answers, weights, of_tier & graded, overall)
            factor[of_tier & ~graded] = WEIGHT
    for tier in range(len(answers.tiers)):
        of_tier = answers.tier == tier
        weak = of_tier & ~graded
        total = float(weights[weak] @ factor[weak])
        allowed = max(MAX_UNGRADED, float(weights[of_tier & graded].sum()))
        if total > allowed:
            factor[weak] *= allowed / total
    return target, factor


def _share(answers: Answers, weights: Floats, rows: Floats, guess: float) -> float:
    """Return the share of right answers among graded rows, drawn towards a guess."""
    right = float(weights[rows] @ answers.score[rows])
    return (right + GUESS_ROWS * guess) / (float(weights[rows].sum()) + GUESS_ROWS)
