"""The cost of a right answer, and the budget from which thinking pays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proctor.evaluation.statistics.delta import RESAMPLES, Interval, delta, interval, resampled
from proctor.evaluation.statistics.samples import Floats, Run, shared_questions


def cost_per_correct(cost: float, accuracy: float) -> float:
    """Return the expected cost of attempts until one is right (arXiv 2504.13359).

    It is infinite if the accuracy is 0.

    Args:
        cost: the total cost of one attempt.
        accuracy: the share of attempts that are right.
    """
    return cost / accuracy if accuracy else math.inf


def first_better(runs: Sequence[Run], without: Run, resamples: int = RESAMPLES) -> Run | None:
    """Return the first run, by rising budget, that significantly beats the one without thinking."""
    for run in runs:
        if delta(run, without, resamples).low > 0:
            return run
    return None


@dataclass(frozen=True, slots=True)
class Crossover:
    """The result of a small model that thinks against a large one that does not.

    Attributes:
        run: the small model's first run, by rising budget, with significantly higher accuracy.
        gain: its accuracy minus the large model's.
        price_ratio: the ratio of the large model's price per token to the small one's at which
            right answers cost the same; above it the small model is cheaper.
    """

    run: Run
    gain: Interval
    price_ratio: Interval


def find_crossover(
    small: Sequence[Run], large: Run, resamples: int = RESAMPLES
) -> Crossover | None:
    """Return where the small model overtakes the large one, or None if it does not."""
    run = first_better(small, large, resamples)
    if run is None:
        return None
    return Crossover(run, delta(run, large, resamples), price_ratio(run, large, resamples))


def price_ratio(small: Run, large: Run, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Return the ratio of the prices per token at which both models' right answers cost the same.

    It is the large model's price over the small one's. All generated tokens are counted, of
    thinking and answers, right and wrong.
    """
    questions = shared_questions([small, large])
    parts = [run.by_question(questions, of) for run in (small, large) for of in FIELDS]
    drawn = [
        _ratio(*(weights @ part for part in parts))
        for weights in resampled(len(questions), resamples, seed)
    ]
    value = _ratio(*(np.array([part.mean()]) for part in parts))[0]
    return interval(float(value), np.concatenate(drawn))


FIELDS = ("generated", "correct")


def _ratio(
    small_tokens: Floats, small_right: Floats, large_tokens: Floats, large_right: Floats
) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = (small_tokens / small_right) / (large_tokens / large_right)
    return ratio


def overthinking(smaller: Run, larger: Run) -> float:
    """Return the share of questions that are right on a smaller budget and wrong on a larger one.

    A question is right if more than half of its samples are.
    """
    questions = shared_questions([smaller, larger])
    before = smaller.by_question(questions, "correct") > 0.5
    after = larger.by_question(questions, "correct") > 0.5
    return float((before & ~after).mean())
