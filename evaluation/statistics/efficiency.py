"""Accuracy for tokens: E³ of one condition, and the area under the curve of several."""

from collections.abc import Sequence

import numpy as np

from proctor.evaluation.statistics.delta import RESAMPLES, Interval, interval, resampled_means
from proctor.evaluation.statistics.mixture import mixture
from proctor.evaluation.statistics.samples import Floats, Run, shared_questions

STEPS = 48
"""Steps of the numerical integral."""


def e_cubed(run: Run, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Return E³ of Plan-and-Budget (arXiv 2505.16122): accuracy² / tokens.

    The accuracy is in percent, and the tokens are all those generated for an answer, so the unit
    is percent² per token: 90% right with 2,000 tokens is 4.05.
    """
    fields = ("correct", "generated")
    values = np.stack([run.by_question(run.questions, field) for field in fields], axis=1)

    def of(means: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            squared: Floats = (100 * means[:, 0]) ** 2 / means[:, 1]
        return squared

    value = float(of(values.mean(axis=0)[None])[0])
    return interval(value, of(resampled_means(values, resamples, seed)))


def area(
    runs: Sequence[Run], low: float, high: float, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the area under accuracy over log2 of the thinking tokens, divided by its width.

    It is a share from 0 to 1: the mean accuracy over budgets from `low` to `high`, every doubling
    of which has the same weight. The accuracy at a budget is that of the runs' mixture line, the
    best that a coin between them gets for a mean of so many tokens.

    Args:
        runs: the conditions of one curve.
        low: the smallest budget in mean thinking tokens, above 0.
        high: the largest, above `low`.
        resamples: the number of bootstrap resamples of the questions.
        seed: the seed of the bootstrap.

    Raises:
        ValueError: if the range is empty, or the runs have no question in common.
    """
    if not 0 < low < high:
        raise ValueError("an area needs a range of positive tokens")
    questions = shared_questions(runs)
    tokens, right = (
        np.stack([run.by_question(questions, field) for run in runs], axis=1)
        for field in ("tokens", "correct")
    )
    budgets = np.geomspace(low, high, STEPS + 1)

    def of(tokens: Floats, right: Floats) -> Floats:
        weights = np.full(STEPS + 1, 1 / STEPS)
        weights[[0, -1]] /= 2  # the trapezoidal rule
        curve = [mixture(tokens, right, np.full(len(tokens), budget)) for budget in budgets]
        mean: Floats = weights @ np.stack(curve)
        return mean

    drawn = of(resampled_means(tokens, resamples, seed), resampled_means(right, resamples, seed))
    return interval(float(of(tokens.mean(axis=0)[None], right.mean(axis=0)[None])[0]), drawn)
