"""The reasoning delta: the change in accuracy against no thinking, paired by question."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from proctor.evaluation.statistics.samples import (
    Floats,
    Run,
    have_shared_questions,
    shared_questions,
)

RESAMPLES = 10_000
CONFIDENCE = 0.95
STEP_TOKENS = 500
CHUNK = 500
"""Resamples per chunk, which bounds the memory."""

MIN_QUESTIONS = 6
"""Questions from which a comparison can be significant: of fewer, all of which agree, the two-sided
sign test has a p of at least 1/16."""

FLAT_POINTS = 0.02
"""A delta whose whole interval is closer to 0 than this is flat."""


class Verdict(StrEnum):
    """The interpretation of a delta."""

    PAYS = "pays"
    FLAT = "flat"
    HURTS = "hurts"
    NOT_ENOUGH_DATA = "not enough data"


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its bounds.

    Attributes:
        value: the estimate.
        low: lower bound at `CONFIDENCE`.
        high: upper bound.
    """

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """The interpretation, if this is a difference in accuracy."""
        if self.low > 0:
            return Verdict.PAYS
        if self.high < 0:
            return Verdict.HURTS
        if max(-self.low, self.high) < FLAT_POINTS:
            return Verdict.FLAT
        return Verdict.NOT_ENOUGH_DATA


def resampled(questions: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield weights of the questions in bootstrap resamples, in chunks (<= CHUNK, questions).

    Questions are drawn with all their samples, which are not independent. Each row sums to 1.
    """
    counts = _counts(questions, resamples, seed)
    for begin in range(0, resamples, CHUNK):
        yield counts[begin : begin + CHUNK] / questions


@lru_cache(maxsize=2)
def _counts(questions: int, resamples: int, seed: int) -> NDArray[np.int16]:
    """Return how often each question is drawn, shape (resamples, questions).

    Cached: a report draws the same questions a hundred times, which takes most of its time.
    """
    generator = np.random.default_rng(seed)
    even = np.full(questions, 1 / questions)
    sizes = [min(CHUNK, resamples - begin) for begin in range(0, resamples, CHUNK)]
    drawn = [generator.multinomial(questions, even, size).astype(np.int16) for size in sizes]
    return np.concatenate(drawn)


def interval(value: float, drawn: Floats) -> Interval:
    """Return the percentile interval of the values of resamples; undefined values are ignored."""
    tail = 100 * (1 - CONFIDENCE) / 2
    defined = drawn[np.isfinite(drawn)]
    if not defined.size:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(defined, [tail, 100 - tail])
    return Interval(value, float(low), float(high))


def resampled_means(values: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Return the means of bootstrap resamples of the questions, shape (resamples, ...).

    Args:
        values: a value, or one for each of several runs, of every question, shape (questions, ...).
        resamples: the number of resamples.
        seed: the seed of the bootstrap.
    """
    drawn = [weights @ values for weights in resampled(len(values), resamples, seed)]
    return np.concatenate(drawn)


def is_conclusive(runs: Sequence[Run]) -> bool:
    """Return whether all runs have enough questions in common for conclusions about them."""
    return have_shared_questions(runs) and len(shared_questions(runs)) >= MIN_QUESTIONS


def share_interval(values: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Return the mean over questions of scores from 0 to 1, and its interval."""
    return _bounded_interval(values, (0, 1), resamples, seed)


def gain_interval(values: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Return the mean over questions of differences of scores, and its interval.

    With fewer than `MIN_QUESTIONS` it excludes nothing.
    """
    if len(values) < MIN_QUESTIONS:
        return Interval(float(values.mean()), -1, 1)
    return _bounded_interval(values, (-1, 1), resamples, seed)


def _bounded_interval(
    values: Floats, bounds: tuple[float, float], resamples: int, seed: int
) -> Interval:
    """Return a mean and its interval, drawn with one more question at each bound.

    Without them, equal values would have an interval without width, as if 0 of 40 proved that
    there is none. For shares this is close to Agresti's and Coull's interval, for gains to
    Bonett's and Price's.
    """
    drawn = resampled_means(np.concatenate([values, bounds]), resamples, seed)
    estimate = interval(float(values.mean()), drawn)
    return Interval(
        estimate.value, min(estimate.low, estimate.value), max(estimate.high, estimate.value)
    )


def delta(run: Run, without: Run, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Return a run's accuracy minus that without thinking, on the questions that both have."""
    questions = shared_questions([run, without])
    gains = run.by_question(questions, "correct") - without.by_question(questions, "correct")
    return gain_interval(gains, resamples, seed)


def slope(runs: Sequence[Run], resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Return the accuracy gained per `STEP_TOKENS` thinking tokens, by least squares.

    Args:
        runs: runs that differ in their mean thinking tokens.
        resamples: the number of bootstrap resamples of the questions.
        seed: the seed of the bootstrap.

    Raises:
        ValueError: if there are fewer than two runs.
    """
    if len(runs) < 2:
        raise ValueError("a slope needs two runs")
    questions = shared_questions(runs)
    tokens = np.stack([run.by_question(questions, "tokens") for run in runs], axis=1)
    right = np.stack([run.by_question(questions, "correct") for run in runs], axis=1)
    drawn = [
        _line(weights @ tokens, weights @ right)
        for weights in resampled(len(questions), resamples, seed)
    ]
    value = _line(tokens.mean(axis=0)[None], right.mean(axis=0)[None])[0]
    return interval(float(value), np.concatenate(drawn))


def _line(tokens: Floats, right: Floats) -> Floats:
    """Return the slope per `STEP_TOKENS` of each row of points, shape (resamples, runs)."""
    centered = tokens - tokens.mean(axis=1, keepdims=True)
    gains = right - right.mean(axis=1, keepdims=True)
    variance = (centered**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes: Floats = STEP_TOKENS * (centered * gains).sum(axis=1) / variance
    return slopes
