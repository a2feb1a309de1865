import math

import pytest

from proctor.evaluation.statistics.price import (
    cost_per_correct,
    find_crossover,
    first_better,
    overthinking,
    price_ratio,
)
from tests.evaluation.factories import run

MANY = [str(number) for number in range(60)]


def test_cost_per_correct_answer() -> None:
    assert cost_per_correct(3.0, 0.5) == 6.0
    assert cost_per_correct(3.0, 0.0) == math.inf


def test_the_first_budget_that_is_significantly_better() -> None:
    none = run("none", {name: [0.0] for name in MANY})
    little = run("64", {name: [float(name == "1")] for name in MANY})
    more = run("256", {name: [float(int(name) % 2)] for name in MANY})

    assert first_better([little, more], none) is more
    assert first_better([little], none) is None


def test_a_small_model_that_thinks_overtakes_a_large_one() -> None:
    large = run("large", {name: [float(int(name) % 2)] for name in MANY}, tokens=10)
    hasty = run("small, 0", {name: [0.0] for name in MANY}, tokens=10)
    small = run("small, 256", {name: [1.0] for name in MANY}, tokens=60)

    crossover = find_crossover([hasty, small], large, resamples=2000)

    assert crossover is not None
    assert crossover.run is small
    assert crossover.gain.value == 0.5
    # 60 tokens a right answer against 20.
    assert crossover.price_ratio.value == pytest.approx(3)
    assert crossover.price_ratio.low < 3 < crossover.price_ratio.high
    assert find_crossover([hasty], large) is None
    assert price_ratio(hasty, large).value == math.inf


def test_overthinking_counts_right_answers_that_become_wrong() -> None:
    short = run("64", {"a": [1, 1, 0], "b": [1], "c": [0], "d": [1]})
    long = run("512", {"a": [0, 0, 1], "b": [1], "c": [1], "d": [0]})

    assert overthinking(short, long) == 0.5
    assert overthinking(short, short) == 0
