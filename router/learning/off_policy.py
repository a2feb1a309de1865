"""Estimates what a policy would have given, from answers under other tiers than it chooses.

The estimates are doubly robust: the model's forecast for each prompt, corrected by the observed
error wherever the tier was the one that the policy chooses, divided by how likely that was. They
are right on average if either the forecasts or these propensities are. Where every prompt was
answered under every tier, they are the means over the answers under the chosen tiers.
"""

from dataclasses import dataclass

import numpy as np

from proctor.router.learning.answers import Answers
from proctor.router.learning.glm import Family, Sample, fit
from proctor.router.model import Floats, Integers
from proctor.router.outcomes.model import Forecasts

RESAMPLES = 1000
SEED = 0

MIN_PROPENSITY = 0.02
"""Lower bound on the probability of a tier, which bounds how much one answer can correct."""

PROPENSITY_PENALTY = 30.0

INTERVAL = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Contributions:
    """What each of n answers contributes to the estimates of K tiers.

    Attributes:
        right: (n, K), contributions to the share of right answers if the tier is chosen.
        tokens: (n, K), contributions to the mean tokens.
        prompt: (n,), equal for equal prompts, from 0.
        weight: (n,), weights by age.
    """

    right: Floats
    tokens: Floats
    prompt: Integers
    weight: Floats

    @classmethod
    def of(cls, answers: Answers, forecasts: Forecasts, weight: Floats) -> "Contributions":
        """Return the contributions of graded answers, with held-out forecasts for them."""
        rows = np.arange(len(answers))
        correction = 1.0 / propensities(answers)[rows, answers.tier]
        right, tokens = forecasts.right.copy(), forecasts.tokens.copy()
        right[rows, answers.tier] += correction * (answers.score - right[rows, answers.tier])
        tokens[rows, answers.tier] += correction * (answers.tokens - tokens[rows, answers.tier])
        _, prompt = np.unique(answers.prompt, return_inverse=True)
        return cls(right, tokens, prompt, weight)

    def value(self, chosen: Integers) -> Floats:
        """Return the share of right answers and the mean tokens of a policy, of shape (2,).

        Args:
            chosen: (n,), the tier that it chooses for each prompt.
        """
        right, tokens = self._chosen(chosen)
        weight = self.weight / self.weight.sum()
        return np.array([weight @ right, weight @ tokens])

    def resampled(self, chosen: Integers) -> Floats:
        """Return bootstrap estimates of `value`, resampled by prompt, of shape (RESAMPLES, 2).

        The same prompts are drawn for every policy, so that differences are paired.
        """
        prompts = int(self.prompt.max()) + 1
        sums = [
            np.bincount(self.prompt, self.weight * each, prompts)
            for each in (*self._chosen(chosen), np.ones(len(self.weight)))
        ]
        generator = np.random.default_rng(SEED)
        drawn = np.empty((RESAMPLES, 3))
        for index in range(RESAMPLES):
            counts = np.bincount(generator.integers(0, prompts, prompts), minlength=prompts)
            drawn[index] = [counts @ each for each in sums]
        return np.asarray(drawn[:, :2] / np.maximum(drawn[:, 2:], 1e-9))

    def _chosen(self, chosen: Integers) -> tuple[Floats, Floats]:
        rows = np.arange(len(chosen))
        return self.right[rows, chosen], self.tokens[rows, chosen]


def propensities(answers: Answers) -> Floats:
    """Estimate how likely each tier was for each prompt, (n, K), at least `MIN_PROPENSITY`.

    A tier is chosen by the request, the router or chance; the first is taken to depend on nothing
    that the features do not tell.
    """
    count, tiers = len(answers), len(answers.tiers)
    predictors = np.empty((count, tiers))
    for tier in range(tiers):
        target = (answers.tier == tier).astype(float)
        share = np.clip(target.mean(), 1e-3, 1.0 - 1e-3)
        offset = float(np.log(share / (1.0 - share)))
        sample = Sample(
            answers.features,
            np.zeros(count, np.intp),
            np.full(count, offset),
            target,
            np.ones(count),
        )
        fitted = fit(Family.BERNOULLI, sample, 1, PROPENSITY_PENALTY)
        predictors[:, tier] = fitted.predictors(answers.features)[:, 0] + offset
    likely = Family.BERNOULLI.mean(predictors)
    likely /= likely.sum(axis=1, keepdims=True)
    return np.asarray(np.maximum(likely, MIN_PROPENSITY))


def mixture_line(tokens: Floats, right: Floats, at: float) -> float:
    """Return the best share of right answers at mean tokens, by a coin between two fixed tiers.

    Args:
        tokens: (K,), mean tokens of the fixed tiers.
        right: (K,), their shares of right answers.
        at: mean tokens. Below those of every tier, the result is the accuracy of the cheapest.
    """
    cheapest = tokens.argmin()
    best = max(
        (share for used, share in zip(tokens, right, strict=True) if used <= at),
        default=right[cheapest],
    )
    for below in np.flatnonzero(tokens <= at):
        for above in np.flatnonzero(tokens > at):
            share = (at - tokens[below]) / (tokens[above] - tokens[below])
            best = max(best, right[below] + share * (right[above] - right[below]))
    return float(best)


def increasing(values: Floats) -> Floats:
    """Return the nearest ascending sequence, by least squares (pool adjacent violators)."""
    pools: list[list[float]] = []
    for value in values.tolist():
        pools.append([value, 1.0])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, size = pools.pop()
            previous, count = pools[-1]
            pools[-1] = [(mean * size + previous * count) / (size + count), size + count]
    return np.repeat([mean for mean, _ in pools], [int(size) for _, size in pools])
