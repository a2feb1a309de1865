import math

import pytest

from proctor.evaluation.statistics.curve import control, flattens_at, performance, scaling

WAITS = [0.500, 0.533, 0.533, 0.533, 0.567, 0.533, 0.567, 0.533, 0.500]
"""Accuracy of s1 on AIME24 by number of "Wait"s, 0 to 8; one question is 3.3 points."""


def test_the_published_results_of_s1() -> None:
    assert performance(WAITS) == 0.567
    assert flattens_at(WAITS) == 4
    assert flattens_at(WAITS, tolerance=0.034) == 1


def test_control_is_a_share() -> None:
    assert control([5, 10, 11, 20], 10, 15) == 0.5
    assert control([5, 10], 0, math.inf) == 1.0
    with pytest.raises(ValueError, match="at least one"):
        control([], 0, 1)


def test_scaling_is_in_points_per_doubling() -> None:
    assert scaling([(100, 0.5), (200, 0.6)]) == pytest.approx(10)
    assert scaling([(400, 0.8), (100, 0.5)]) == pytest.approx(15)
    # Pairs: 10 over one doubling, 0 over one, 10 over two.
    assert scaling([(100, 0.5), (200, 0.6), (400, 0.6)]) == pytest.approx((10 + 0 + 5) / 3)


@pytest.mark.parametrize("points", [[], [(10, 0.1)], [(10, 0.1), (10, 0.2)], [(0, 0.1), (1, 0.1)]])
def test_scaling_needs_two_different_positive_budgets(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="scaling"):
        scaling(points)


@pytest.mark.parametrize(
    ("accuracies", "tolerance", "at"),
    [([0.1, 0.2, 0.3], 0, 2), ([0.3, 0.2, 0.1], 0, 0), ([0.1, 0.28, 0.3], 0.05, 1), ([0.1], 0, 0)],
)
def test_where_a_curve_flattens(accuracies: list[float], tolerance: float, at: int) -> None:
    assert flattens_at(accuracies, tolerance) == at
