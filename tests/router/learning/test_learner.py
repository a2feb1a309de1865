"""What is learned from simulated traffic, whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from proctor.router.learning.fitting import NO_FRONTIER, fit_outcomes
from proctor.router.learning.learner import MIN_GRADED, Learned, learn
from proctor.router.learning.off_policy import mixture_line
from proctor.router.outcomes.frontier import Frontier, cheapest
from proctor.router.outcomes.model import MAX_RIGHT, MIN_RIGHT, Forecasts, OutcomeModel
from proctor.router.outcomes.policy import Objective, Rule
from tests.router.learning.worlds import (
    RECIPE,
    Assign,
    World,
    blind,
    by_chance,
    by_difficulty,
    joined,
    varied,
)

PRICE = Objective(error_cost=600.0)
NEW = 4000
"""New prompts on which a policy's true value is computed."""


def forecasts(model: OutcomeModel, world: World) -> Forecasts:
    return model.forecast_all(world.features, world.levels)


def true_value(learned: Learned, world: World, objective: Objective) -> tuple[float, float]:
    """Return the true accuracy and tokens of a learned policy on new prompts."""
    model = learned.model
    frontier = Frontier(
        model.error_costs.tolist(), model.mean_tokens.tolist(), model.accuracy.tolist()
    )
    price, _ = objective.price(frontier)
    expected = forecasts(model, world)
    position = np.random.default_rng(3).random(len(world.features))
    low, high = (
        cheapest(expected.right, expected.tokens, each) for each in (price.low, price.high)
    )
    return world.value(np.where(position < price.share, high, low))


def gain(value: tuple[float, float], world: World) -> float:
    """Return the accuracy over that of a coin between two fixed tiers at the same tokens."""
    right, tokens = world.right.mean(axis=0), world.tokens.mean(axis=0)
    return value[0] - mixture_line(tokens, right, value[1])


@pytest.fixture(scope="module")
def learned() -> Learned:
    return learn(varied(800).answers(by_chance), RECIPE, PRICE)


def test_probabilities_and_tokens_are_near_the_truth(learned: Learned) -> None:
    world = varied(NEW, seed=1)
    expected = forecasts(learned.model, world)
    assert np.abs(expected.right - world.right).mean() < 0.06
    assert expected.tokens.mean(axis=0) == pytest.approx(world.tokens.mean(axis=0), rel=0.1, abs=1)
    assert np.corrcoef(expected.tokens[:, 2], world.tokens[:, 2])[0, 1] > 0.95


def test_predictions_come_true(learned: Learned) -> None:
    """In every bin of predictions for new prompts the mean truth is near the mean prediction."""
    world = varied(NEW, seed=1)
    expected = forecasts(learned.model, world).right.ravel()
    truth = world.right.ravel()
    for rows in np.array_split(np.argsort(expected), 10):
        assert truth[rows].mean() == pytest.approx(expected[rows].mean(), abs=0.06)


def test_the_report_of_the_calibration_holds(learned: Learned) -> None:
    assert learned.findings is not None
    calibration = learned.findings.calibration
    assert calibration.brier < 0.9 * calibration.reference
    assert sum(each.count for each in calibration.bins) == 800
    inside = [each.interval[0] <= each.predicted <= each.interval[1] for each in calibration.bins]
    assert sum(inside) >= 8


def test_without_a_grade_the_prior_stands() -> None:
    """Cold start: ungraded answers whose ending says nothing change no probability."""
    world = varied(300)
    answers = world.answers(by_chance, graded=0.0)
    found = learn(answers, RECIPE, PRICE)
    prior = np.clip(world.levels @ RECIPE.prior_right, MIN_RIGHT, MAX_RIGHT)
    assert forecasts(found.model, world).right == pytest.approx(prior, abs=1e-5)
    assert found.findings is None
    assert found.objections == (f"0 answers are graded; {MIN_GRADED} are needed to judge it",)


def test_the_prior_gives_way_little_by_little() -> None:
    world, new = varied(2000), varied(NEW, seed=1)
    answers = world.answers(by_chance)
    prior = new.levels @ RECIPE.prior_right
    from_prior, from_truth = [], []
    for count in (5, 40, 300, 2000):
        fitted = fit_outcomes(answers.select(np.arange(count)), RECIPE, (30.0, 30.0))
        right = forecasts(fitted.to_model(answers, RECIPE, NO_FRONTIER), new).right
        from_prior.append(np.abs(right - prior).mean())
        from_truth.append(np.abs(right - new.right).mean())
    assert from_prior == sorted(from_prior)
    assert from_prior[0] < 0.05
    assert from_truth[3] < from_truth[2] < from_truth[1]
    assert from_truth[3] < 0.4 * from_truth[0]


def test_a_world_that_changes_is_followed() -> None:
    """`low` is as good as `high` at first, and useless later."""
    better = varied(1200, seed=2, harm=np.array([0.0, -2.0, 0.0, 0.0])).answers(by_chance, days=60)
    worse = varied(600, seed=3, harm=np.array([0.0, 4.0, 0.0, 0.0])).answers(by_chance, days=30)
    answers = joined(better, worse)
    new = varied(NEW, seed=4, harm=np.array([0.0, 4.0, 0.0, 0.0]))
    errors = []
    for half_life in (7.0, 30.0, 100_000.0):
        found = learn(answers, replace(RECIPE, half_life=half_life), PRICE)
        right = forecasts(found.model, new).right[:, 1]
        errors.append(abs(right.mean() - new.right[:, 1].mean()))
    assert errors[0] < 0.08
    assert errors == sorted(errors)
    assert errors[2] > 3 * errors[0]


def test_a_change_of_the_answers_is_told() -> None:
    before = varied(1200, seed=2).answers(by_chance)
    harmed = varied(400, seed=3, harm=np.full(4, 2.0)).answers(by_chance)
    drift = learn(joined(before, harmed), RECIPE, PRICE).drift
    assert drift is not None
    assert drift.accuracy_shifted
    assert drift.z is not None
    assert drift.z < 0.0
    assert not drift.prompts_shifted


def test_a_change_of_the_prompts_is_told() -> None:
    before, after = varied(1200, seed=2), varied(400, seed=3)
    harder = replace(after, levels=np.tile([0.05, 0.05, 0.1, 0.8], (400, 1)))
    drift = learn(joined(before.answers(by_chance), harder.answers(by_chance)), RECIPE, PRICE).drift
    assert drift is not None
    assert drift.prompts_shifted


def test_no_change_is_told_where_there_is_none(learned: Learned) -> None:
    assert learned.drift is not None
    assert not learned.drift.prompts_shifted
    assert not learned.drift.accuracy_shifted


@pytest.mark.parametrize("assign", [by_chance, by_difficulty])
@pytest.mark.parametrize(
    ("error_cost", "least"), [(100.0, -0.01), (300.0, 0.02), (1000.0, 0.005), (3000.0, -0.02)]
)
def test_where_prompts_differ_the_policy_beats_every_coin(
    assign: Assign, error_cost: float, least: float
) -> None:
    """At prices at which one tier suits nearly all prompts, it is about as good as that tier."""
    world = varied(NEW, seed=1)
    objective = Objective(error_cost=error_cost)
    found = learn(varied(1500).answers(assign), RECIPE, objective)
    assert gain(true_value(found, world, objective), world) > least


@pytest.mark.parametrize("error_cost", [100.0, 300.0, 1000.0, 3000.0])
def test_where_prompts_tell_nothing_the_policy_is_as_good_as_a_coin(error_cost: float) -> None:
    world = blind(NEW, seed=1)
    objective = Objective(error_cost=error_cost)
    found = learn(blind(1500).answers(by_chance), RECIPE, objective)
    assert gain(true_value(found, world, objective), world) > -0.015


@pytest.mark.parametrize("tokens", [30.0, 80.0, 150.0])
def test_an_average_budget_is_kept(tokens: float) -> None:
    world = varied(NEW, seed=1)
    objective = Objective(mean_tokens=tokens)
    found = learn(varied(1500).answers(by_chance), RECIPE, objective)
    accuracy, used = true_value(found, world, objective)
    assert used == pytest.approx(tokens, rel=0.12)
    assert gain((accuracy, used), world) > 0.01


@pytest.mark.parametrize("floor", [0.75, 0.82])
def test_the_floor_is_kept_on_new_prompts(floor: float) -> None:
    world = varied(NEW, seed=1)
    objective = Objective(error_cost=1.0, min_accuracy=floor)
    found = learn(varied(1500).answers(by_chance), RECIPE, objective)
    assert found.findings is not None
    assert found.findings.rule is Rule.MIN_ACCURACY
    assert true_value(found, world, objective)[0] > floor - 0.02


def test_a_floor_out_of_reach_is_an_objection() -> None:
    found = learn(
        varied(800).answers(by_chance), RECIPE, Objective(error_cost=600.0, min_accuracy=0.999)
    )
    assert len(found.objections) == 1
    assert "is below min_accuracy, 0.999" in found.objections[0]


def test_estimates_hold_although_hard_prompts_got_more_thinking() -> None:
    """The plain means of the tiers mislead here, by confounding."""
    world = varied(3000)
    answers = world.answers(by_difficulty)
    found = learn(answers, RECIPE, PRICE)
    assert found.findings is not None
    for tier, estimate in enumerate(found.findings.judgement.fixed):
        truth = world.right[:, tier].mean()
        mean = np.nanmean(answers.score[answers.tier == tier])
        assert abs(estimate.right - truth) < max(0.04, 0.5 * abs(mean - truth))


def test_learning_is_deterministic(learned: Learned) -> None:
    again = learn(varied(800).answers(by_chance), RECIPE, PRICE)
    assert again.findings == learned.findings
    assert (again.model.right_weights == learned.model.right_weights).all()


def test_one_tier_alone_is_an_objection() -> None:
    answers = varied(200).answers(lambda world: np.ones(len(world.features), np.intp))
    found = learn(answers, RECIPE, PRICE)
    assert found.objections[0] == "fewer than two tiers have 20 answers"


def test_nothing_to_learn_from_is_refused() -> None:
    answers = varied(10).answers(by_chance)
    with pytest.raises(ValueError, match="no answers"):
        learn(answers.select(np.zeros(0, np.intp)), RECIPE, PRICE)
