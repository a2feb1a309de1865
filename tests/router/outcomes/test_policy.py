from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.router import Prediction
from proctor.router.model import ModelError
from proctor.router.outcomes.frontier import Frontier, Price
from proctor.router.outcomes.model import OutcomeModel
from proctor.router.outcomes.policy import Objective, Policy, Rule, explored, positions
from tests.router.outcomes.models import TIERS, model

EASY, HARD = Prediction((0.97, 0.01, 0.01, 0.01)), Prediction((0.01, 0.01, 0.01, 0.97))


def chosen(objective: Objective, prediction: Prediction, position: float = 0.5) -> str:
    return Policy(model(), objective).choose(prediction, position).tier


def test_the_price_of_a_wrong_answer_decides() -> None:
    assert chosen(Objective(error_cost=1.0), HARD) == "none"
    assert chosen(Objective(error_cost=100_000.0), HARD) == "high"
    assert chosen(Objective(error_cost=300.0), EASY) == "none"


def test_a_choice_shows_its_numbers() -> None:
    choice = Policy(model(), Objective(error_cost=1000.0)).choose(HARD, 0.5)
    assert choice.rule is Rule.ERROR_COST
    assert choice.error_cost == 1000.0
    assert choice.tiers == TIERS
    assert choice.forecast is not None
    assert choice.forecast.right[3] == pytest.approx(0.95, abs=0.01)
    assert choice.forecast.tokens.tolist() == pytest.approx([1e-3, 100.0, 200.0, 300.0], rel=1e-3)


def test_an_average_budget_between_two_prices_goes_to_a_share_of_the_prompts() -> None:
    policy = Policy(model(), Objective(mean_tokens=150.0))
    tiers = {position: policy.choose(HARD, position) for position in (0.1, 0.49, 0.51, 0.9)}
    assert [choice.error_cost for choice in tiers.values()] == [np.inf, np.inf, 500.0, 500.0]
    assert all(choice.rule is Rule.MEAN_THINKING_TOKENS for choice in tiers.values())


FRONTIER = Frontier([0.0, 500.0, np.inf], [0.0, 100.0, 200.0], [0.5, 0.8, 0.9])


@pytest.mark.parametrize(
    ("objective", "price", "rule"),
    [
        (Objective(error_cost=700.0), Price.fixed(700.0), Rule.ERROR_COST),
        (Objective(error_cost=700.0, min_accuracy=0.7), Price.fixed(700.0), Rule.ERROR_COST),
        (Objective(error_cost=1.0, min_accuracy=0.8), Price(0.0, 500.0, 1.0), Rule.MIN_ACCURACY),
        (Objective(mean_tokens=50.0), Price(0.0, 500.0, 0.5), Rule.MEAN_THINKING_TOKENS),
        (
            Objective(mean_tokens=50.0, min_accuracy=0.6),
            Price(0.0, 500.0, 0.5),
            Rule.MEAN_THINKING_TOKENS,
        ),
        (
            Objective(mean_tokens=50.0, min_accuracy=0.95),
            Price.fixed(np.inf),
            Rule.MIN_ACCURACY,
        ),
        (Objective(min_accuracy=0.65), Price(0.0, 500.0, 0.5), Rule.MIN_ACCURACY),
    ],
)
def test_the_floor_takes_precedence(objective: Objective, price: Price, rule: Rule) -> None:
    found, by = objective.price(FRONTIER)
    assert by is rule
    assert (found.low, found.high) == (price.low, price.high)
    assert found.share == pytest.approx(price.share)


@pytest.mark.parametrize("error_cost", [0.0, 500.0, 1e9, np.inf])
def test_a_tier_without_answers_is_not_chosen(error_cost: float) -> None:
    policy = Policy(model(rows=(0, 50, 50, 0)), Objective(error_cost=error_cost))
    assert policy.choose(EASY, 0.5).tier in ("low", "medium")
    assert policy.choose(HARD, 0.5).tier in ("low", "medium")


def test_a_model_of_another_classifier_is_refused() -> None:
    other = Prediction((0.25, 0.25, 0.25, 0.25), features=np.zeros(3, np.float32))
    with pytest.raises(ModelError, match="4 features, the classifier gives 7"):
        Policy(model(), Objective(error_cost=1.0)).choose(other, 0.5)


def test_a_model_survives_its_file(tmp_path: Path) -> None:
    path, again = tmp_path / "model.npz", tmp_path / "again.npz"
    model().save(path)
    loaded = OutcomeModel.load(path)
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()
    assert loaded.tiers.tolist() == list(TIERS)


@pytest.mark.parametrize(
    "broken",
    [
        replace(model(), right_bias=np.zeros(3, np.float32)),
        replace(model(), token_bias=np.full(4, np.nan, np.float32)),
        replace(model(), error_costs=np.zeros(0), mean_tokens=np.zeros(0), accuracy=np.zeros(0)),
    ],
)
def test_a_file_with_bad_arrays_is_refused(broken: OutcomeModel, tmp_path: Path) -> None:
    broken.save(tmp_path / "model.npz")
    with pytest.raises(ModelError, match="not an outcome model"):
        OutcomeModel.load(tmp_path / "model.npz")
    with pytest.raises(ModelError, match="nowhere"):
        OutcomeModel.load(tmp_path / "nowhere.npz")


@given(st.text())
def test_positions_depend_on_the_text_only(text: str) -> None:
    assert positions(text) == positions(text)
    assert all(0.0 <= each < 1.0 for each in positions(text))


def test_positions_are_uniform_and_independent() -> None:
    drawn = np.array([positions(f"prompt {number}") for number in range(20_000)])
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 0.01
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.03


def test_the_share_of_exploration_is_kept_over_all_other_tiers() -> None:
    counts = dict.fromkeys(TIERS, 0)
    for number in range(50_000):
        draw, pick, _ = positions(f"prompt {number}")
        counts[explored(TIERS, "low", 0.02, draw, pick)] += 1
    tried = sum(count for tier, count in counts.items() if tier != "low")
    assert tried / 50_000 == pytest.approx(0.02, abs=0.002)
    for tier in ("none", "medium", "high"):
        assert counts[tier] / tried == pytest.approx(1 / 3, abs=0.06)


def test_without_a_share_or_another_tier_nothing_is_explored() -> None:
    assert explored(TIERS, "low", 0.0, 0.0, 0.5) == "low"
    assert explored(("low",), "low", 1.0, 0.0, 0.5) == "low"
