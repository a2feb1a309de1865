"""Fits outcome models, with a penalty chosen by cross-validation."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from proctor.router.learning.answers import Answers
from proctor.router.learning.glm import Coefficients, Family, Sample, fit_adaptively
from proctor.router.learning.weak_labels import labels
from proctor.router.model import Floats, Integers
from proctor.router.outcomes.frontier import cheapest
from proctor.router.outcomes.model import Forecasts, OutcomeModel, logit
from proctor.router.outcomes.prior import Prior

PENALTIES = (300.0, 100.0, 30.0, 10.0)
"""Ridge penalties to choose from; of equally good ones the first is chosen."""

PRIOR_EMPHASIS = 3.0
"""Scale of the logit of the prior as a feature, which is penalized less for it."""

FOLDS = 5
SEED = 0

MAX_TUNING_ANSWERS = 4_000
"""The newest answers by which the penalty is chosen."""

MIN_MEAN = 1e-3
"""The least mean of a tier's tokens in relation to all: that of no thinking must be positive."""

DAY = 86_400.0

NO_FRONTIER = np.array([[0.0], [0.0], [0.0]])


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an outcome model is learned with.

    Attributes:
        level_tiers: the index of the tier of each of 4 levels; tiers are numbered as they appear.
        prior: the reading of the costs of misclassification.
        half_life: the age in days at which an answer counts half.
    """

    level_tiers: tuple[int, ...]
    prior: Prior
    half_life: float = 30.0

    @property
    def prior_right(self) -> Floats:
        """The prior's probability of a right answer, of each level under each tier, (L, K)."""
        first = [self.level_tiers.index(tier) for tier in range(max(self.level_tiers) + 1)]
        return self.prior.right[:, first]

    def prior_choices(self, levels: Floats) -> Integers:
        """Return the tiers that the costs choose, (n,), by probabilities of the levels, (n, L)."""
        right, tokens = levels @ self.prior.right, levels @ self.prior.tokens
        return np.array(self.level_tiers)[cheapest(right, tokens, self.prior.error_cost)]

    def weights(self, answers: Answers) -> Floats:
        """Return the weight of each answer by its age, (n,); the newest has 1."""
        if not len(answers):
            return np.zeros(0)
        return np.asarray(np.exp2((answers.time - answers.time.max()) / (self.half_life * DAY)))


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Both fitted models, without a frontier.

    Attributes:
        right: adds to the logit of the prior.
        prior_slope: (K,), factors on that logit.
        tokens: the logarithm of the expected tokens.
    """

    right: Coefficients
    prior_slope: Floats
    tokens: Coefficients

    def to_model(self, answers: Answers, recipe: Recipe, frontier: Floats) -> OutcomeModel:
        """Return the model with a frontier, an array (3, F) of prices, tokens and accuracies."""
        return OutcomeModel(
            tiers=np.array(answers.tiers),
            rows=np.bincount(answers.tier, minlength=len(answers.tiers)),
            prior_right=recipe.prior_right.astype(np.float32),
            prior_slope=self.prior_slope.astype(np.float32),
            right_weights=self.right.weights,
            right_bias=self.right.bias,
            token_weights=self.tokens.weights,
            token_bias=self.tokens.bias,
            error_costs=frontier[0],
            mean_tokens=frontier[1],
            accuracy=frontier[2],
        )


def fit_outcomes(answers: Answers, recipe: Recipe, penalties: tuple[float, float]) -> Outcomes:
    """Fit both models, with a penalty for each."""
    tiers = len(answers.tiers)
    known = right_sample(answers, recipe)
    known = known.select(np.flatnonzero(known.weight))
    right = fit_adaptively(Family.BERNOULLI, known, tiers, penalties[0])
    sample, scale = token_sample(answers, recipe)
    tokens = fit_adaptively(Family.POISSON, sample, tiers, penalties[1])
    bias = tokens.bias + _mean_logs(answers, recipe) + np.log(scale)
    return Outcomes(
        Coefficients(right.weights[:, 1:], right.bias),
        1.0 + PRIOR_EMPHASIS * right.weights[:, 0],
        Coefficients(tokens.weights, bias.astype(np.float32)),
    )


def right_sample(answers: Answers, recipe: Recipe) -> Sample:
    """Return the targets of the model of right answers: grades, and weak labels.

    The logit of the prior is the offset, and once more the first feature: a classifier whose
    levels say little about this model's answers is to be unlearned with few answers.
    """
    weights = recipe.weights(answers)
    target, factor = labels(answers, weights)
    offsets = logit(answers.levels @ recipe.prior_right)
    offset = offsets[np.arange(len(answers)), answers.tier]
    features = np.column_stack([PRIOR_EMPHASIS * offset, answers.features]).astype(np.float32)
    return Sample(features, answers.tier, offset, target, weights * factor)


def token_sample(answers: Answers, recipe: Recipe) -> tuple[Sample, float]:
    """Return the targets of the model of tokens, and the number of tokens that is 1 in them."""
    weights = recipe.weights(answers)
    scale = _scale(answers, weights)
    offset = _mean_logs(answers, recipe)[answers.tier]
    return Sample(answers.features, answers.tier, offset, answers.tokens / scale, weights), scale


def _scale(answers: Answers, weights: Floats) -> float:
    return max(float(weights @ answers.tokens) / max(float(weights.sum()), 1e-9), 1.0)


def _mean_logs(answers: Answers, recipe: Recipe) -> Floats:
    """Return the logarithm of each tier's mean tokens in relation to all, (K,).

    A tier without answers gets the mean of all, which is 0.
    """
    weights, tiers = recipe.weights(answers), len(answers.tiers)
    total = np.bincount(answers.tier, weights * answers.tokens, tiers)
    count = np.bincount(answers.tier, weights, tiers)
    means = np.where(count > 0.0, total / np.maximum(count, 1e-9), _scale(answers, weights))
    return np.asarray(np.log(np.maximum(means / _scale(answers, weights), MIN_MEAN)))


def folds(answers: Answers) -> Iterator[tuple[Integers, Integers]]:
    """Yield training rows and held-out rows; equal prompts are held out together."""
    prompts = answers.prompt.max() + 1 if len(answers) else 0
    fold = np.random.default_rng(SEED).permutation(prompts) % FOLDS
    for held_out in range(FOLDS):
        inside = fold[answers.prompt] == held_out
        if inside.any() and not inside.all():
            yield np.flatnonzero(~inside), np.flatnonzero(inside)


def choose_penalties(answers: Answers, recipe: Recipe) -> tuple[float, float]:
    """Return the penalties of the least held-out loss, of the newest answers by both models."""
    newest = answers.select(np.arange(max(0, len(answers) - MAX_TUNING_ANSWERS), len(answers)))
    right, (tokens, _) = right_sample(newest, recipe), token_sample(newest, recipe)
    # Weak labels help to learn, but only grades can judge.
    judges = recipe.weights(newest) * newest.graded
    tiers = len(answers.tiers)
    losses = np.zeros((2, len(PENALTIES)))
    for train, held_out in folds(newest):
        for index, penalty in enumerate(PENALTIES):
            fitted = fit_adaptively(Family.BERNOULLI, right.select(train), tiers, penalty)
            losses[0, index] += _loss(
                Family.BERNOULLI, fitted, right.select(held_out), judges[held_out]
            )
            fitted = fit_adaptively(Family.POISSON, tokens.select(train), tiers, penalty)
            sample = tokens.select(held_out)
            losses[1, index] += _loss(Family.POISSON, fitted, sample, sample.weight)
    best = losses.argmin(axis=1).tolist()
    return PENALTIES[best[0]], PENALTIES[best[1]]


def _loss(family: Family, fitted: Coefficients, sample: Sample, weights: Floats) -> float:
    predictors = fitted.predictors(sample.features)[np.arange(len(sample.tier)), sample.tier]
    return float(weights @ family.loss(predictors + sample.offset, sample.target))


def held_out_forecasts(
    answers: Answers, recipe: Recipe, penalties: tuple[float, float]
) -> Forecasts:
    """Return what models that have not seen a prompt expect of it under each tier, (n, K)."""
    shape = (len(answers), len(answers.tiers))
    right, tokens = np.empty(shape), np.empty(shape)
    for train, held_out in folds(answers):
        fitted = fit_outcomes(answers.select(train), recipe, penalties)
        model = fitted.to_model(answers, recipe, NO_FRONTIER)
        forecasts = model.forecast_all(answers.features[held_out], answers.levels[held_out])
        right[held_out], tokens[held_out] = forecasts.right, forecasts.tokens
    return Forecasts(right, tokens)
