"""The reasoning delta: what a budget changes against none, question by question."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from proctor.evaluation.statistics.samples import Floats, Run, shared_questions

RESAMPLES = 10_000
CONFIDENCE = 0.95
STEP_TOKENS = 500
CHUNK = 500
"""Resamples that are drawn at a time, to bound the memory."""

FLAT_POINTS = 0.02
"""A delta whose whole interval is nearer to 0 than this is as good as none."""


class Verdict(StrEnum):
    """What a delta says."""

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
        """In words, of a difference in accuracy."""
        if self.low > 0:
            return Verdict.PAYS
        if self.high < 0:
            return Verdict.HURTS
        if max(-self.low, self.high) < FLAT_POINTS:
            return Verdict.FLAT
        return Verdict.NOT_ENOUGH_DATA


def resampled(questions: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Weights of the questions in bootstrap resamples, in chunks of shape (some, questions).

    A question is drawn with all its samples: they are no independent evidence. Each row sums
    to 1.
    """
    counts = _counts(questions, resamples, seed)
    for begin in range(0, resamples, CHUNK):
        yield counts[begin : begin + CHUNK] / questions


@lru_cache(maxsize=1)
def _counts(questions: int, resamples: int, seed: int) -> NDArray[np.int16]:
    """How often each question is drawn, shape (resamples, questions).

    Kept, as a report draws the same questions a hundred times, and drawing takes most of its time.
    """
    generator = np.random.default_rng(seed)
    even = np.full(questions, 1 / questions)
    sizes = [min(CHUNK, resamples - begin) for begin in range(0, resamples, CHUNK)]
    drawn = [generator.multinomial(questions, even, size).astype(np.int16) for size in sizes]
    return np.concatenate(drawn)


def interval(value: float, drawn: Floats) -> Interval:
    """The percentile interval of what resamples gave; those that are undefined are left out."""
    tail = 100 * (1 - CONFIDENCE) / 2
    defined = drawn[np.isfinite(drawn)]
    if not defined.size:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(defined, [tail, 100 - tail])
    return Interval(value, float(low), float(high))


def mean_interval(values: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean over questions, one value each."""
    drawn = [weights @ values for weights in resampled(len(values), resamples, seed)]
    return interval(float(values.mean()), np.concatenate(drawn))


def delta(run: Run, without: Run, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Accuracy of a run minus that without thinking, on the questions that both have."""
    questions = shared_questions([run, without])
    gains = run.by_question(questions, "correct") - without.by_question(questions, "correct")
    return mean_interval(gains, resamples, seed)


def slope(runs: Sequence[Run], resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Accuracy gained for every `STEP_TOKENS` more tokens of thinking: a least-squares line.

    Args:
        runs: settings that differ in their mean thinking tokens.
        resamples: of the bootstrap over questions.
        seed: of the same.

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
    """Slopes of lines through points of shape (resamples, runs), per `STEP_TOKENS`."""
    across = tokens - tokens.mean(axis=1, keepdims=True)
    up = right - right.mean(axis=1, keepdims=True)
    spread = (across**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes: Floats = STEP_TOKENS * (across * up).sum(axis=1) / spread
    return slopes
