import numpy as np
import pytest

from proctor.evaluation.statistics.delta import (
    Interval,
    Verdict,
    delta,
    interval,
    mean_interval,
    resampled,
    slope,
)
from proctor.evaluation.statistics.samples import shared_questions
from tests.evaluation.factories import covers, run, simulate

pytestmark = pytest.mark.slow

REPETITIONS = 1000
QUESTIONS = 120


def test_a_delta_is_paired_by_question() -> None:
    before = run("none", {"a": [0, 0], "b": [1, 0], "c": [1, 1]})
    after = run("512", {"c": [1, 1], "a": [1, 1], "b": [1, 0], "d": [0]})

    estimate = delta(after, before, resamples=2000)

    assert estimate.value == pytest.approx(1 / 3)
    assert (estimate.low, estimate.high) == (0, 1)


def test_questions_have_equal_weight_whatever_their_samples() -> None:
    uneven = run("x", {"a": [1] * 9, "b": [0]})
    assert uneven.accuracy == 0.5


def test_a_run_that_lacks_a_question_is_named() -> None:
    with pytest.raises(ValueError, match="run 'x' has no sample of question 'b'"):
        run("x", {"a": [1]}).by_question(["a", "b"], "correct")
    with pytest.raises(ValueError, match="no question in common"):
        shared_questions([run("x", {"a": [1]}), run("y", {"b": [1]})])


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [
        ((0.01, 0.2), Verdict.PAYS),
        ((-0.2, -0.01), Verdict.HURTS),
        ((-0.01, 0.015), Verdict.FLAT),
        ((-0.01, 0.03), Verdict.NOT_ENOUGH_DATA),
        ((float("nan"), float("nan")), Verdict.NOT_ENOUGH_DATA),
    ],
)
def test_the_verdict_of_an_interval(bounds: tuple[float, float], verdict: Verdict) -> None:
    assert Interval(0, *bounds).verdict is verdict


def test_resamples_draw_as_many_questions_as_there_are() -> None:
    drawn = np.concatenate([*resampled(7, 1234, seed=1)])

    assert drawn.shape == (1234, 7)
    assert drawn.sum(axis=1) == pytest.approx(1)
    assert drawn.mean(axis=0) == pytest.approx(1 / 7, abs=0.01)
    assert np.isin(drawn * 7, range(8)).all()


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.arange(20, dtype=np.float64)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    assert mean_interval(values, seed=3) != mean_interval(values, seed=4)


def test_an_interval_of_undefined_values_is_nan() -> None:
    estimate = interval(float("inf"), np.array([np.inf, np.nan]))
    assert np.isnan([estimate.low, estimate.high]).all()


def test_a_slope_by_hand() -> None:
    runs = [
        run("none", {"a": [0], "b": [0]}, tokens=0),
        run("500", {"a": [1], "b": [0]}, tokens=500),
        run("1000", {"a": [1], "b": [1]}, tokens=1000),
    ]
    assert slope(runs, resamples=200).value == pytest.approx(0.5)
    with pytest.raises(ValueError, match="two runs"):
        slope(runs[:1])


def test_intervals_cover_at_the_stated_rate() -> None:
    """Samples of one question are not independent: resampling them would not reach the coverage."""
    generator = np.random.default_rng(20261123)
    truth, covered = 0.1, np.zeros(2)
    for repetition in range(REPETITIONS):
        chances = generator.uniform(0.2, 0.6, QUESTIONS)
        runs = [simulate(generator, chances + gain, at, 3) for gain, at in ((0, 0), (truth, 500))]
        covered += [
            covers(delta(runs[1], runs[0], 400, repetition), truth),
            covers(slope(runs, 400, repetition), truth),
        ]

    assert covered / REPETITIONS == pytest.approx(0.95, abs=0.025)
