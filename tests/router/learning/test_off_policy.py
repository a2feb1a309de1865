from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.router.learning.answers import Answers
from proctor.router.learning.off_policy import (
    Contributions,
    increasing,
    mixture_line,
    propensities,
)
from proctor.router.outcomes.model import Forecasts
from tests.router.learning.worlds import TIERS, World, by_difficulty, joined, varied

USED, SHARE = np.array([0.0, 50.0, 100.0]), np.array([0.5, 0.6, 0.9])


def _always(tier: int, count: int, _: object) -> np.ndarray:
    return np.full(count, tier)


def under_every_tier(world: World) -> Answers:
    count = len(world.features)
    parts = [world.answers(partial(_always, tier, count), seed=tier) for tier in range(len(TIERS))]
    answers = joined(*parts)
    return Answers(
        **{name: getattr(answers, name) for name in Answers.__slots__}
        | {"prompt": np.tile(np.arange(count), len(TIERS))}
    )


def test_where_all_tiers_answered_all_prompts_the_estimate_is_the_mean() -> None:
    """Even with forecasts that are nonsense."""
    world = varied(100)
    answers = under_every_tier(world)
    nonsense = Forecasts(np.full((400, 4), 0.3), np.full((400, 4), 7.0))
    contributions = Contributions.of(answers, nonsense, np.ones(400))
    choice = np.random.default_rng(0).integers(0, 4, 100)

    value = contributions.value(np.tile(choice, 4))

    rows = choice * 100 + np.arange(100)
    assert propensities(answers) == pytest.approx(0.25)
    assert value[0] == pytest.approx(answers.score[rows].mean())
    assert value[1] == pytest.approx(answers.tokens[rows].mean())


def test_right_forecasts_or_right_propensities_are_enough() -> None:
    world = varied(6000)
    answers = world.answers(by_difficulty)
    wrong = Forecasts(np.full_like(world.right, 0.5), np.full_like(world.tokens, 100.0))
    for forecasts in (Forecasts(world.right, world.tokens), wrong):
        contributions = Contributions.of(answers, forecasts, np.ones(6000))
        for tier in range(4):
            value = contributions.value(np.full(6000, tier))
            assert value[0] == pytest.approx(world.right[:, tier].mean(), abs=0.06)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    inside, truth = 0, varied(20_000).right[:, 2].mean()
    for seed in range(40):
        world = varied(300, seed=seed)
        answers = world.answers(by_difficulty, seed=seed)
        forecasts = Forecasts(world.right, world.tokens)
        contributions = Contributions.of(answers, forecasts, np.ones(300))
        resampled = contributions.resampled(np.full(300, 2))[:, 0]
        low, high = np.quantile(resampled, [0.025, 0.975])
        inside += low <= truth <= high
    assert inside >= 34


def test_equal_prompts_are_resampled_together() -> None:
    """Copies of an answer are no more evidence than one."""
    world = varied(200)
    once = world.answers(by_difficulty)
    copied = once.select(np.repeat(np.arange(200), 5))
    widths = []
    for answers, world_rows in ((once, np.arange(200)), (copied, np.repeat(np.arange(200), 5))):
        forecasts = Forecasts(world.right[world_rows], world.tokens[world_rows])
        contributions = Contributions.of(answers, forecasts, np.ones(len(answers)))
        resampled = contributions.resampled(np.full(len(answers), 1))[:, 0]
        widths.append(resampled.std())
    assert widths[1] == pytest.approx(widths[0], rel=0.15)


@pytest.mark.parametrize(
    ("at", "line"), [(0.0, 0.5), (25.0, 0.6), (50.0, 0.7), (75.0, 0.8), (100.0, 0.9), (150.0, 0.9)]
)
def test_the_line_is_that_of_the_best_coin(at: float, line: float) -> None:
    """The middle tier is below the line between the other two."""
    assert mixture_line(USED, SHARE, at) == pytest.approx(line)


def test_below_all_tiers_the_line_is_the_cheapest_one() -> None:
    assert mixture_line(USED + 10.0, SHARE, 5.0) == 0.5


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12), st.integers(0, 100))
def test_the_ascending_sequence_is_the_nearest(values: list[float], seed: int) -> None:
    given_values = np.array(values)
    found = increasing(given_values)
    assert (np.diff(found) >= -1e-12).all()
    other = np.sort(np.random.default_rng(seed).uniform(-10, 10, len(values)))
    assert ((found - given_values) ** 2).sum() <= ((other - given_values) ** 2).sum() + 1e-9
    # Between the solution and any other ascending sequence nothing is nearer either.
    between = 0.9 * found + 0.1 * other
    assert ((found - given_values) ** 2).sum() <= ((between - given_values) ** 2).sum() + 1e-9
