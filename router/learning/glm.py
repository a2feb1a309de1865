"""Generalized linear models of several tiers, which share most of what they learn.

The weights of a tier are the sum of weights that all tiers share and of its own. Both have a ridge
penalty, so that a tier with few answers resembles the others. Fitted by Newton's method, with
conjugate gradients for its linear systems: no matrix of the size of the weights is formed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from proctor.router.model import Floats, Integers

BIAS_SCALE = 5.0
"""Divides the penalty of a bias by its square."""

EMPHASIS = (0.1, 4.0)
"""Bounds of the factors by which features are scaled before the second fit."""

MAX_STEPS, MAX_CONJUGATE, MAX_HALVINGS = 50, 200, 20
TOLERANCE = 1e-4
"""Relative size of the gradient at which the fit ends."""

MAX_LOG_MEAN = 20.0


class Family(Enum):
    """The distribution of a target."""

    BERNOULLI = "bernoulli"
    """A probability, with a logit link; targets may be anything from 0 to 1."""
    POISSON = "poisson"
    """A mean, with a logarithmic link; targets may be anything from 0."""

    def mean(self, predictor: Floats) -> Floats:
        """Return the means for linear predictors."""
        if self is Family.BERNOULLI:
            return np.asarray(1.0 / (1.0 + np.exp(-predictor)))
        return np.asarray(np.exp(np.minimum(predictor, MAX_LOG_MEAN)))

    def variance(self, mean: Floats) -> Floats:
        """Return the variances of targets with these means: the loss's second derivatives."""
        return mean * (1.0 - mean) if self is Family.BERNOULLI else mean

    def loss(self, predictor: Floats, target: Floats) -> Floats:
        """Return the negative log likelihood of each target, up to a constant."""
        if self is Family.BERNOULLI:
            return np.asarray(np.logaddexp(0.0, predictor) - target * predictor)
        return self.mean(predictor) - target * predictor


@dataclass(frozen=True, slots=True)
class Sample:
    """n answers.

    Attributes:
        features: (n, D) float32.
        tier: (n,), the index of the tier of each.
        offset: (n,), what is added to each linear predictor.
        target: (n,).
        weight: (n,), of 0 or more.
    """

    features: Floats
    tier: Integers
    offset: Floats
    target: Floats
    weight: Floats

    def select(self, rows: Integers) -> "Sample":
        """Return the answers of these rows."""
        return Sample(
            self.features[rows],
            self.tier[rows],
            self.offset[rows],
            self.target[rows],
            self.weight[rows],
        )


@dataclass(frozen=True, slots=True)
class Coefficients:
    """A fitted model of K tiers.

    Attributes:
        weights: (K, D).
        bias: (K,).
    """

    weights: Floats
    bias: Floats

    def predictors(self, features: Floats) -> Floats:
        """Return linear predictors, without offsets: of n prompts under each tier, (n, K)."""
        return np.asarray(features @ self.weights.T + self.bias)


class _Design:
    """The linear map from parameters to linear predictors, and its transpose.

    Parameters are an array (K + 1, D + 1): for each tier its own weights and bias, then the shared
    weights, with an unused bias.
    """

    def __init__(self, sample: Sample, tiers: int) -> None:
        order = np.argsort(sample.tier, kind="stable")
        self.sample = sample.select(order)
        ends = np.searchsorted(self.sample.tier, np.arange(tiers + 1)).tolist()
        self._slices = [slice(ends[tier], ends[tier + 1]) for tier in range(tiers)]
        self.shape = (tiers + 1, sample.features.shape[1] + 1)

    def forward(self, parameters: Floats) -> Floats:
        predictors = np.empty(len(self.sample.tier))
        for tier, rows in enumerate(self._slices):
            weights = (parameters[tier, :-1] + parameters[-1, :-1]).astype(np.float32)
            predictors[rows] = self.sample.features[rows] @ weights + parameters[tier, -1]
        return predictors

    def transpose(self, residuals: Floats) -> Floats:
        parameters = np.zeros(self.shape)
        for tier, rows in enumerate(self._slices):
            parameters[tier, :-1] = residuals[rows].astype(np.float32) @ self.sample.features[rows]
            parameters[tier, -1] = residuals[rows].sum()
        parameters[-1, :-1] = parameters[:-1, :-1].sum(axis=0)
        return parameters


def fit(family: Family, sample: Sample, tiers: int, penalty: float) -> Coefficients:
    """Fit a model by penalized maximum likelihood; deterministic.

    Args:
        family: the distribution of the targets.
        sample: the answers.
        tiers: the number of tiers; those without answers get the shared weights.
        penalty: the ridge penalty of all weights.
    """
    design = _Design(sample, tiers)
    sample = design.sample
    penalties = np.full(design.shape, penalty)
    penalties[:, -1] /= BIAS_SCALE**2

    def objective(predictors: Floats, parameters: Floats) -> float:
        losses = family.loss(predictors + sample.offset, sample.target)
        return float(sample.weight @ losses + 0.5 * (penalties * parameters**2).sum())

    parameters = np.zeros(design.shape)
    predictors = np.zeros(len(sample.tier))
    value, scale = objective(predictors, parameters), 0.0
    for _ in range(MAX_STEPS):
        mean = family.mean(predictors + sample.offset)
        gradient = design.transpose(sample.weight * (mean - sample.target))
        gradient += penalties * parameters
        size = float(np.linalg.norm(gradient))
        scale = max(scale, size)
        if size <= TOLERANCE * scale or not size:
            break
        curvature = sample.weight * family.variance(mean)

        def hessian(step: Floats, curvature: Floats = curvature) -> Floats:
            return design.transpose(curvature * design.forward(step)) + penalties * step

        step = _conjugate_gradients(hessian, -gradient, tolerance=min(0.1, size / scale))
        change = design.forward(step)
        length = 1.0
        for _ in range(MAX_HALVINGS):
            trial = objective(predictors + length * change, parameters + length * step)
            if trial < value:
                break
            length /= 2.0
        else:
            break
        parameters = parameters + length * step
        predictors = predictors + length * change
        value = trial
    weights = parameters[:-1, :-1] + parameters[-1, :-1]
    return Coefficients(weights.astype(np.float32), parameters[:-1, -1].astype(np.float32))


def fit_adaptively(family: Family, sample: Sample, tiers: int, penalty: float) -> Coefficients:
    """Fit a model twice: features that turned out to matter are penalized less the second time.

    See `fit` for the arguments. Of a thousand hashed words a few matter, which one ridge penalty
    for all spreads over the rest (adaptive ridge).
    """
    first = fit(family, sample, tiers, penalty)
    size = np.sqrt((first.weights**2).mean(axis=0))
    typical = float(np.sqrt((size**2).mean())) or 1.0
    scale = np.clip(np.sqrt(size / typical), *EMPHASIS).astype(np.float32)
    scaled = replace(sample, features=sample.features * scale)
    second = fit(family, scaled, tiers, penalty)
    return Coefficients(second.weights * scale, second.bias)


def _conjugate_gradients(
    apply: Callable[[Floats], Floats], right: Floats, tolerance: float
) -> Floats:
    """Solve a positive definite system to a relative tolerance."""
    solution = np.zeros_like(right)
    residual = right.copy()
    direction = residual
    square = float((residual**2).sum())
    target = square * tolerance**2
    for _ in range(MAX_CONJUGATE):
        if square <= target:
            break
        applied = apply(direction)
        length = square / float((direction * applied).sum())
        solution = solution + length * direction
        residual = residual - length * applied
        previous, square = square, float((residual**2).sum())
        direction = residual + (square / previous) * direction
    return solution
