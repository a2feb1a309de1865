"""What a right answer costs, and from which budget on thinking is worth it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proctor.evaluation.statistics.delta import RESAMPLES, Interval, delta, interval, resampled
from proctor.evaluation.statistics.samples import Floats, Run, shared_questions


def cost_per_correct(cost: float, accuracy: float) -> float:
    """Expected cost of attempts until one is right (arXiv 2504.13359): infinite if none ever is.

    Args:
        cost: of an attempt, everything counted.
        accuracy: the share that is right.
    """
    return cost / accuracy if accuracy else math.inf


def crossover(runs: Sequence[Run], without: Run, resamples: int = RESAMPLES) -> Run | None:
    """The first of the runs, by rising budget, whose delta's interval is all above 0."""
    for run in runs:
        if delta(run, without, resamples).low > 0:
            return run
    return None


@dataclass(frozen=True, slots=True)
class Crossover:
    """A small model that thinks, against a large one that does not.

    Attributes:
        run: the small model's first run, by rising budget, that is surely more often right.
        gain: its accuracy minus the large one's.
        price_ratio: at how many times the small one's price per token a right answer of the
            large one costs the same; above that the small one is cheaper.
    """

    run: Run
    gain: Interval
    price_ratio: Interval


def overtaking(small: Sequence[Run], large: Run, resamples: int = RESAMPLES) -> Crossover | None:
    """Where the small model overtakes, or None if it does not."""
    run = crossover(small, large, resamples)
    if run is None:
        return None
    return Crossover(run, delta(run, large, resamples), price_ratio(run, large, resamples))


def price_ratio(small: Run, large: Run, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The large model's price per token over the small one's at which right answers cost alike.

    All generated tokens are counted, thinking and answers, right and wrong.
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
    """The share of questions that are right on a smaller budget and wrong on a larger.

    A question is right if more than half of its samples are.
    """
    questions = shared_questions([smaller, larger])
    before = smaller.by_question(questions, "correct") > 0.5
    after = larger.by_question(questions, "correct") > 0.5
    return float((before & ~after).mean())
