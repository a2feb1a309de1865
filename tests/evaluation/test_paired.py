"""Paired comparisons: exact p-values, the level of the test, and the coverage of ratios."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from proctor.evaluation.statistics.paired import adjust, compare, sign_flip_test
from tests.evaluation.factories import covers, run, simulate


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_with_one_answer_it_is_mcnemars_exact_test(better: int, worse: int, equal: int) -> None:
    differences = np.array([1.0] * better + [-1.0] * worse + [0.0] * equal)
    discordant = better + worse
    expected = binomtest(better, discordant).pvalue if discordant else 1.0
    assert sign_flip_test(differences) == pytest.approx(expected)


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.5, 1.0]), min_size=1, max_size=8))
def test_with_several_answers_it_approaches_all_assignments_of_signs(values: list[float]) -> None:
    sizes = np.abs(values)
    sums = [abs(np.dot(signs, sizes)) for signs in product((-1, 1), repeat=len(values))]
    expected = np.mean(np.array(sums) >= abs(sum(values)))
    assert sign_flip_test(np.array(values), draws=4000) == pytest.approx(expected, abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 3])
def test_the_level_holds_with_answers_that_depend_on_their_question(samples: int) -> None:
    """Of equal conditions one in twenty is rejected at most, of unequal ones most are."""
    generator, repetitions = np.random.default_rng(20261129), 600
    rejected = np.zeros(2)
    for repetition in range(repetitions):
        chances = generator.beta(0.5, 0.5, 120)  # most questions are easy or hopeless
        one, same = (simulate(generator, chances, 100, samples) for _ in range(2))
        better = simulate(generator, np.minimum(chances + 0.2, 1), 100, samples)
        for at, other in enumerate((same, better)):
            gains = other.by_question(one.questions, "correct") - one.by_question(
                one.questions, "correct"
            )
            rejected[at] += sign_flip_test(gains, 400, repetition) <= 0.05

    level, power = rejected / repetitions
    assert 0.01 < level < 0.07
    assert power > 0.8


@pytest.mark.slow
def test_ratios_of_tokens_cover_at_the_stated_rate() -> None:
    generator, repetitions, covered = np.random.default_rng(3), 400, 0
    for repetition in range(repetitions):
        chances = generator.uniform(0, 1, 100)
        more, fewer = (simulate(generator, chances, tokens, 2) for tokens in (100, 70))
        covered += covers(compare(fewer, more, 300, repetition).tokens_ratio, 0.7)

    assert covered / repetitions == pytest.approx(0.95, abs=0.03)


def test_a_comparison_is_of_the_questions_that_both_have() -> None:
    before = run("before", {"a": [0, 0], "b": [1, 0], "c": [1, 1]}, tokens=100)
    after = run("after", {"c": [1, 1], "a": [1, 1], "b": [1, 1], "d": [0]}, tokens=70)

    comparison = compare(after, before, resamples=500)

    assert comparison.questions == 3
    assert comparison.gain.value == pytest.approx(0.5)
    assert comparison.tokens_ratio.value == comparison.generated_ratio.value == pytest.approx(0.7)
    assert comparison.p_value == pytest.approx(0.5, abs=0.05)  # two differences of one sign
    none = compare(after, run("none", {"a": [0]}, tokens=0), resamples=10)
    assert np.isinf(none.tokens_ratio.value)


def test_holms_adjustment_by_hand() -> None:
    assert adjust([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust([0.9, 0.8]) == [1.0, 1.0]
    assert adjust([]) == []
