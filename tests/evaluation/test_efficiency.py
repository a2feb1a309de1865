"""E³, and the area under the curve of accuracy over log2 of the tokens."""

import math

import numpy as np
import pytest

from proctor.evaluation.statistics.efficiency import area, e_cubed
from tests.evaluation.factories import covers, run, simulate


def test_e_cubed_by_hand() -> None:
    estimate = e_cubed(run("x", {"a": [1, 1], "b": [1, 0], "c": [0, 0]}, tokens=1000), 500)
    assert estimate.value == pytest.approx(50**2 / 1000)
    assert [estimate.low, estimate.high] == pytest.approx([0, 100**2 / 1000])


def test_the_area_by_hand() -> None:
    """A coin between nothing and 100 tokens gets t / 200, and no more than a half after that."""
    half = run("half", {"a": [1], "b": [0]}, tokens=100)
    # The integral of t / 200 over ln t is t / 200; the one of a half is ln t / 2.
    rising, level = (100 - 25) / 200, math.log(4) / 2
    assert area([half], 25, 100, 10).value == pytest.approx(rising / math.log(4), rel=1e-3)
    assert area([half], 100, 400, 10).value == pytest.approx(0.5)
    expected = (rising + level) / math.log(16)
    assert area([half], 25, 400, 10).value == pytest.approx(expected, rel=1e-3)
    for low, high in ((0, 10), (10, 10), (20, 10)):
        with pytest.raises(ValueError, match="range"):
            area([half], low, high)


def test_a_condition_more_never_lowers_the_area() -> None:
    generator = np.random.default_rng(5)
    runs = [simulate(generator, [0.2 * at] * 50, 60 * at, 1) for at in range(1, 5)]
    areas = [area(runs[:count], 50, 300, 10).value for count in range(1, 5)]
    assert areas == sorted(areas)


@pytest.mark.slow
def test_intervals_cover_at_the_stated_rate() -> None:
    generator, repetitions = np.random.default_rng(20261129), 200
    # The coin between the two conditions at 100 and 400 tokens, 0.3 + 0.4 (t - 100) / 300.
    mean_accuracy = 0.3 - 0.4 / 3 + 0.4 / 300 * 300 / math.log(4)
    covered = np.zeros(2)
    for repetition in range(repetitions):
        skill = generator.uniform(-0.25, 0.25, 150)
        runs = [
            simulate(generator, chance + skill, tokens, 2)
            for chance, tokens in ((0.3, 100), (0.7, 400))
        ]
        covered += [
            covers(e_cubed(runs[1], 200, repetition), 70**2 / 400),
            covers(area(runs, 100, 400, 200, repetition), mean_accuracy),
        ]

    assert covered / repetitions == pytest.approx(0.95, abs=0.035)
