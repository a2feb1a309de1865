"""Paired comparison of two conditions on the same questions.

Questions are the units, as Miller recommends (arXiv 2411.00640): the answers to one question are
not independent, and most of the variance is between questions, from which pairing is free.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proctor.evaluation.statistics.delta import (
    CHUNK,
    MIN_QUESTIONS,
    RESAMPLES,
    Interval,
    gain_interval,
    interval,
    resampled_means,
)
from proctor.evaluation.statistics.samples import Floats, Run, shared_questions

ROUNDING = 1e-9
"""The difference of two sums of scores that is attributed to rounding."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One condition against another on the questions that both have.

    Attributes:
        questions: the number of these questions.
        gain: the accuracy minus the other's.
        p_value: of the null hypothesis that the two are interchangeable on every question.
        tokens_ratio: thinking tokens divided by the other's.
        generated_ratio: all generated tokens divided by the other's. Of fewer than
            `MIN_QUESTIONS` questions, ratios have no interval (NaN).
    """

    questions: int
    gain: Interval
    p_value: float
    tokens_ratio: Interval
    generated_ratio: Interval


def compare(run: Run, other: Run, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Compare two runs.

    Raises:
        ValueError: if they have no question in common.
    """
    questions = shared_questions([run, other])
    fields = ("correct", "tokens", "generated")
    values = np.stack(
        [each.by_question(questions, field) for field in fields for each in (run, other)], axis=1
    )
    gains = values[:, 0] - values[:, 1]
    means, drawn = values.mean(axis=0), resampled_means(values, resamples, seed)

    def ratio(at: int) -> Interval:
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(means[at] / means[at + 1])
            if len(questions) < MIN_QUESTIONS:
                return Interval(value, math.nan, math.nan)
            return interval(value, drawn[:, at] / drawn[:, at + 1])

    return Comparison(
        questions=len(questions),
        gain=gain_interval(gains, resamples, seed),
        p_value=sign_flip_test(gains, resamples, seed),
        tokens_ratio=ratio(2),
        generated_ratio=ratio(4),
    )


def sign_flip_test(differences: Floats, draws: int = RESAMPLES, seed: int = 0) -> float:
    """Return the two-sided p-value of Fisher's randomization test of paired differences.

    If the conditions are interchangeable, each difference is as likely to have the opposite sign.
    With one right or wrong answer per question this is McNemar's exact test. With several, whose
    mean is the question's, the distribution is estimated from random signs; the observed ones
    count as a draw, so that the level holds.

    Args:
        differences: one for each question.
        draws: the number of random assignments of signs.
        seed: the seed of the signs.
    """
    sizes = np.abs(differences[differences != 0])
    if not sizes.size:
        return 1.0
    if np.allclose(sizes, sizes[0]):
        return _binomial_test(int((differences > 0).sum()), len(sizes))
    generator = np.random.default_rng(seed)
    observed = abs(differences.sum()) - ROUNDING
    as_large = 0
    for begin in range(0, draws, CHUNK):
        signs = generator.choice((-1.0, 1.0), (min(CHUNK, draws - begin), len(sizes)))
        as_large += int((np.abs(signs @ sizes) >= observed).sum())
    return (as_large + 1) / (draws + 1)


def adjust(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (1979), for several tests in one table."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _binomial_test(successes: int, trials: int) -> float:
    """Return the two-sided p-value of so many successes with a probability of one half."""
    fewer = min(successes, trials - successes)
    tail = sum(math.comb(trials, count) for count in range(fewer + 1))
    probability: float = 2 * tail / 2**trials
    return min(1.0, probability)
