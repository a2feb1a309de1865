from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proctor.router.learning.glm import (
    BIAS_SCALE,
    Coefficients,
    Family,
    Sample,
    fit,
    fit_adaptively,
)
from proctor.router.model import Floats

TIERS = 3


def sample(count: int = 200, seed: int = 0, family: Family = Family.BERNOULLI) -> Sample:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, 4)).astype(np.float32)
    tier = generator.integers(0, TIERS, count)
    offset = generator.normal(size=count)
    mean = family.mean(offset + features @ [1.0, -1.0, 0.5, 0.0] + tier - 1.0)
    drawn = (
        generator.random(count) < mean if family is Family.BERNOULLI else generator.poisson(mean)
    )
    return Sample(features, tier, offset, drawn.astype(float), generator.uniform(0.2, 2.0, count))


def loss(family: Family, of: Sample, shared: Floats, own: Floats, bias: Floats) -> float:
    """Return the penalized loss, written down plainly, at a penalty of 2."""
    predictors = (of.features * (shared + own[of.tier])).sum(axis=1) + bias[of.tier] + of.offset
    penalty = (shared**2).sum() + (own**2).sum() + (bias**2).sum() / BIAS_SCALE**2
    return float(of.weight @ family.loss(predictors, of.target) + 0.5 * 2.0 * penalty)


def split(found: Coefficients) -> tuple[Floats, Floats, Floats]:
    """Return the shared weights and those of each tier that the penalty prefers, and the biases."""
    shared = found.weights.sum(axis=0) / (TIERS + 1)
    return shared, found.weights - shared, found.bias.astype(float)


@pytest.mark.parametrize("family", Family)
@given(seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_no_other_coefficients_are_better(family: Family, seed: int) -> None:
    data = sample(120, seed, family)
    shared, own, bias = split(fit(family, data, TIERS, 2.0))
    least = loss(family, data, shared, own, bias)
    generator = np.random.default_rng(seed)
    for size in (0.003, 0.03, 0.3):
        changed = [part + size * generator.normal(size=part.shape) for part in (shared, own, bias)]
        assert loss(family, data, *changed) > least


@pytest.mark.parametrize("family", Family)
def test_a_weight_of_two_is_an_answer_twice(family: Family) -> None:
    data = sample(family=family)
    twice = data.select(np.repeat(np.arange(200), 2))
    once = fit(family, replace(data, weight=2 * data.weight), TIERS, 5.0)
    again = fit(family, twice, TIERS, 5.0)
    assert again.weights == pytest.approx(once.weights, abs=2e-3)
    assert again.bias == pytest.approx(once.bias, abs=2e-3)


def test_without_answers_nothing_is_learned() -> None:
    found = fit(Family.BERNOULLI, sample().select(np.zeros(0, np.intp)), TIERS, 1.0)
    assert not found.weights.any()
    assert not found.bias.any()


def test_a_tier_without_answers_gets_what_the_others_share() -> None:
    data = sample()
    found = fit(Family.BERNOULLI, data.select(np.flatnonzero(data.tier < 2)), TIERS, 1.0)
    assert found.weights[2] == pytest.approx(found.weights[:2].sum(axis=0) / 3, abs=1e-2)
    assert found.bias[2] == 0.0


def test_features_that_do_not_matter_are_penalized_more() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(400, 200)).astype(np.float32)
    mean = Family.BERNOULLI.mean(2.0 * features[:, 0] - 2.0 * features[:, 1])
    target = (generator.random(400) < mean).astype(float)
    tier = np.zeros(400, np.intp)
    data = Sample(features, tier, np.zeros(400), target, np.ones(400))
    plain, adaptive = (
        fit(Family.BERNOULLI, data, 1, 30.0),
        fit_adaptively(Family.BERNOULLI, data, 1, 30.0),
    )

    def share(found: Coefficients) -> float:
        return float((found.weights[0, :2] ** 2).sum() / (found.weights**2).sum())

    assert share(adaptive) > share(plain) + 0.1


def test_extreme_targets_stay_finite() -> None:
    data = sample(family=Family.POISSON)
    found = fit(Family.POISSON, replace(data, target=data.target * 1e6), TIERS, 1e-3)
    assert np.isfinite(found.weights).all()
    certain = replace(data, target=(data.features[:, 0] > 0).astype(float))
    found = fit(Family.BERNOULLI, certain, TIERS, 1e-3)
    assert np.isfinite(found.weights).all()
