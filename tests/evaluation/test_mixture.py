"""The mixture line, and how far a run is above it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.evaluation.statistics.mixture import margins, mixture, vertices
from proctor.evaluation.statistics.samples import Run, Sample
from tests.evaluation.factories import covers, run, simulate

LOW, MEDIUM = (47.0, 0.882), (115.0, 0.987)
"""Two tiers of the demo model, as decision 10 reports them."""

shares = st.integers(0, 100).map(lambda percent: percent / 100)
points = st.tuples(st.integers(0, 500).map(float), shares)


def mixture_at(conditions: list[tuple[float, float]], tokens: float) -> float:
    means, right = np.array(conditions).T
    return float(mixture(means[None], right[None], np.array([tokens]))[0])


@pytest.mark.parametrize(
    ("tokens", "right"),
    [
        (47, 0.882),
        (115, 0.987),
        (83, 0.882 + (83 - 47) / (115 - 47) * 0.105),
        (23.5, 0.441),  # every other question is not answered
        (0, 0),
        (500, 0.987),
    ],
)
def test_a_coin_between_two_tiers_by_hand(tokens: float, right: float) -> None:
    assert mixture_at([LOW, MEDIUM], tokens) == pytest.approx(right)
    # Dearer and no better, cheaper and much worse, and between the two on the wrong side.
    dominated = [(130.0, 0.987), (40.0, 0.1), (80.0, 0.9)]
    assert mixture_at([LOW, MEDIUM, *dominated], tokens) == pytest.approx(right)
    assert vertices([(80.0, 0.9), MEDIUM, (130.0, 0.987), LOW]) == [3, 1]


@given(st.lists(points, min_size=1, max_size=8), st.integers(0, 600))
def test_the_mixture_line_is_the_upper_concave_hull(
    conditions: list[tuple[float, float]], tokens: float
) -> None:
    corners = vertices([(0.0, 0.0), *conditions])
    hull = np.array([[(0.0, 0.0), *conditions][at] for at in corners])

    assert mixture_at(conditions, tokens) == pytest.approx(np.interp(tokens, *hull.T))
    for mean, right in conditions:
        assert mixture_at(conditions, mean) >= right - 1e-12


def test_margins_by_hand() -> None:
    questions = {str(at): [float(at < 5)] for at in range(10)}
    none = run("none", {name: [0.0] for name in questions}, tokens=0)
    half, all_right = (
        run("half", questions, 100),
        run("all", {name: [1.0] for name in questions}, 300),
    )
    clever = run("clever", {name: [float(int(name) < 7)] for name in questions}, 150)

    estimates = margins([none, half, all_right, clever], [none, half, all_right], resamples=200)

    # At 100 tokens the coin between nothing and all gets a third; the clever one is compared with
    # the coin that pays for half of the questions and for a quarter of them more.
    expected = [0, 0.5 - 1 / 3, 0.5, 0.7 - 0.625]
    assert [each.value for each in estimates] == pytest.approx(expected)
    assert all(each.low <= each.value <= each.high for each in estimates)


def test_a_run_that_equals_a_fixed_one_is_on_the_line() -> None:
    generator = np.random.default_rng(1)
    fixed = [simulate(generator, [0.3 + 0.2 * at] * 60, 100 * (at + 1), 2) for at in range(3)]
    (estimate,) = margins([Run("again", fixed[1].samples)], fixed, resamples=200)
    assert estimate.value == pytest.approx(0, abs=0.05)
    assert estimate.high <= 1e-12  # the line is at least as high as the run


@pytest.mark.slow
def test_margins_cover_at_the_stated_rate() -> None:
    """A clever run gets 10 points more than the coin between two of three conditions."""
    generator, repetitions, questions = np.random.default_rng(20261129), 300, 150
    covered = np.zeros(2)
    for repetition in range(repetitions):
        skill = generator.uniform(-0.15, 0.15, questions)
        fixed = [
            simulate(generator, chance + skill, tokens, 2)
            for chance, tokens in ((0.2, 50), (0.6, 150), (0.8, 400))
        ]
        clever = simulate(generator, 0.5 + skill, 100, 2)  # the coin: 0.4
        inner, outer = margins([fixed[1], clever], fixed, 300, repetition)
        # Without the second condition the coin between the others gets 0.2 + 0.6 * 100 / 350.
        covered += [covers(inner, 0.6 - (0.2 + 0.6 * 100 / 350)), covers(outer, 0.1)]

    assert covered / repetitions == pytest.approx(0.95, abs=0.03)


def test_unequal_questions_are_left_out() -> None:
    one = Run("one", (Sample("a", 10, 10, 1.0), Sample("b", 10, 10, 0.0)))
    two = Run("two", (Sample("b", 20, 20, 1.0), Sample("c", 20, 20, 0.0)))
    assert margins([one], [one, two], resamples=10)[0].value == -0.5  # question b at 10 of 20
