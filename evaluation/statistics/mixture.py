"""The mixture line: what a coin between two conditions gets for its tokens.

A coin that sends each question to one of two conditions gets any accuracy on the straight line
between them. The upper concave hull of all conditions is therefore what can be had without looking
at the question, and what looks at the question must beat. The hull begins at 0 tokens and 0% right,
which is not to answer, and is level from its most accurate condition on.
"""

from collections.abc import Sequence

import numpy as np

from proctor.evaluation.statistics.delta import RESAMPLES, Interval, interval, resampled_means
from proctor.evaluation.statistics.samples import Floats, Run, shared_questions


def mixture(tokens: Floats, right: Floats, at: Floats) -> Floats:
    """Return the best accuracy of a coin with a mean of at most `at` tokens, shape (n,).

    Args:
        tokens: mean tokens of each condition, shape (n, conditions).
        right: accuracy of each condition, in the same shape.
        at: mean tokens of the coin, at least 0, shape (n,).
    """
    unanswered = np.zeros((len(at), 1))
    tokens, right = np.hstack([unanswered, tokens]), np.hstack([unanswered, right])
    affordable = tokens <= at[:, None]
    best: Floats = np.where(affordable, right, 0).max(axis=1)
    for one in range(tokens.shape[1]):
        mixed = affordable[:, [one]] & ~affordable
        distance = np.where(mixed, tokens - tokens[:, [one]], 1)
        share = (at - tokens[:, one])[:, None] / distance
        coin = right[:, [one]] + share * (right - right[:, [one]])
        best = np.maximum(best, np.where(mixed, coin, 0).max(axis=1))
    return best


def vertices(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the conditions on the hull, from the cheapest to the most accurate.

    Args:
        points: mean tokens and accuracy of each condition.
    """
    chosen = [min(range(len(points)), key=lambda index: (points[index][0], -points[index][1]))]
    while True:
        tokens, right = points[chosen[-1]]
        steeper = [
            ((point[1] - right) / (point[0] - tokens), point[0], index)
            for index, point in enumerate(points)
            if point[0] > tokens and point[1] > right
        ]
        if not steeper:
            return chosen
        chosen.append(max(steeper)[-1])


def margins(
    runs: Sequence[Run], fixed: Sequence[Run], resamples: int = RESAMPLES, seed: int = 0
) -> list[Interval]:
    """Return how far each run's accuracy is above the mixture line at the run's own tokens.

    The line is drawn anew in each resample, so that its own uncertainty is part of the interval. A
    fixed run is compared with the line of the other ones.

    Args:
        runs: the runs to judge.
        fixed: the runs between which the coin decides.
        resamples: the number of bootstrap resamples of the questions.
        seed: the seed of the bootstrap.

    Raises:
        ValueError: if the runs have no question in common.
    """
    unique = list({id(run): run for run in [*runs, *fixed]}.values())
    column = {id(run): at for at, run in enumerate(unique)}
    questions = shared_questions(unique)
    tokens, right = (
        np.stack([run.by_question(questions, field) for run in unique], axis=1)
        for field in ("tokens", "correct")
    )

    def above(run: Run, tokens: Floats, right: Floats) -> Floats:
        own = column[id(run)]
        others = [column[id(each)] for each in fixed if each is not run]
        line = mixture(tokens[:, others], right[:, others], tokens[:, own])
        margin: Floats = right[:, own] - line
        return margin

    measured = tokens.mean(axis=0)[None], right.mean(axis=0)[None]
    drawn = resampled_means(tokens, resamples, seed), resampled_means(right, resamples, seed)
    return [interval(float(above(run, *measured)[0]), above(run, *drawn)) for run in runs]
