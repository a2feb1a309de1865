import numpy as np
import pytest

from proctor.evaluation.statistics.delta import (
    Interval,
    Verdict,
    delta,
    gain_interval,
    interval,
    is_conclusive,
    resampled,
    share_interval,
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
    assert (estimate.low, estimate.high) == (-1, 1)  # three questions are too few


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
    values = np.linspace(0, 1, 20)
    assert share_interval(values, seed=3) == share_interval(values, seed=3)
    assert share_interval(values, seed=3) != share_interval(values, seed=4)


@pytest.mark.parametrize(("right", "low", "high"), [(0, 0, 0.071), (40, 0.929, 1)])
def test_an_interval_of_equal_scores_has_a_width(right: int, low: float, high: float) -> None:
    estimate = share_interval(np.repeat([1.0, 0.0], [right, 40 - right]))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.001)  # 3 of 42


@pytest.mark.parametrize("questions", [1, 5, 6, 40])
@pytest.mark.parametrize("gain", [-1, 0, 1])
def test_equal_gains_are_significant_from_six_questions_on(questions: int, gain: int) -> None:
    estimate = gain_interval(np.full(questions, float(gain)))
    assert estimate.low <= gain <= estimate.high
    enough = {-1: Verdict.HURTS, 0: Verdict.NOT_ENOUGH_DATA, 1: Verdict.PAYS}[gain]
    assert estimate.verdict is (enough if questions >= 6 else Verdict.NOT_ENOUGH_DATA)


def test_no_gain_over_many_questions_is_flat() -> None:
    assert gain_interval(np.zeros(2000)).verdict is Verdict.FLAT


def test_conclusions_need_six_questions() -> None:
    runs = [run("x", {name: [1] for name in names}) for names in ("abcdef", "abcdefg", "abcde")]
    assert is_conclusive(runs[:2])
    assert not is_conclusive(runs)
    assert not is_conclusive([])


@pytest.mark.parametrize("share", [0.02, 0.3, 0.97])
def test_intervals_of_few_questions_cover_at_the_stated_rate(share: float) -> None:
    generator = np.random.default_rng(1)
    scores = generator.random((400, 40)) < share
    covered = [
        covers(share_interval(row.astype(np.float64), 1000, at), share)
        for at, row in enumerate(scores)
    ]
    assert np.mean(covered) > 0.92


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
