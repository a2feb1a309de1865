from collections.abc import Callable
from itertools import permutations
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.evaluation.statistics.samples import Run, Sample
from proctor.evaluation.statistics.strategies import any_right, best_of_n, majority, rejection

# Question a: "1" twice, which is right, and "2" once, with the highest log probability. Question b:
# never right.
SAMPLES = (
    Sample("a", 10, 12, 1.0, "1", -0.5),
    Sample("a", 20, 22, 1.0, "1", -0.4),
    Sample("a", 30, 32, 0.0, "2", -0.1),
    Sample("b", 40, 42, 0.0, "7", -0.3),
    Sample("b", 50, 52, 0.0, None, None),
    Sample("b", 60, 62, 0.0, "8", -0.2),
)
RUN = Run("at most 60", SAMPLES)


@pytest.mark.parametrize(
    ("strategy", "k", "right"),
    [
        (majority, 1, 2 / 3),
        (majority, 2, (1 + 0.5 + 0.5) / 3),
        (majority, 3, 1.0),
        (best_of_n, 1, 2 / 3),
        (best_of_n, 2, 1 / 3),
        (best_of_n, 3, 0.0),
        (any_right, 1, 2 / 3),
        (any_right, 2, 1.0),
    ],
)
def test_strategies_by_hand(strategy: Callable[[Run, int], Run], k: int, right: float) -> None:
    resulting = strategy(RUN, k)

    a, b = resulting.samples
    assert (a.question, b.question) == ("a", "b")
    assert a.correct == pytest.approx(right)
    assert b.correct == 0
    assert (a.tokens, a.generated) == pytest.approx((20 * k, 22 * k))
    assert resulting.accuracy == pytest.approx(right / 2)


def test_questions_with_too_few_answers_are_left_out() -> None:
    run = Run("x", (*SAMPLES, Sample("c", 1, 1, 1.0, "1")))
    assert majority(run, 3).questions == ["a", "b"]


def test_rejection_by_hand() -> None:
    resulting = rejection(RUN, 20)

    a, b = resulting.samples
    # Two answers to a are within the maximum. The third comes before them in one order of three.
    assert a.correct == 1
    assert a.tokens == pytest.approx(15 + 30 / 3)
    # No answer to b is within the maximum: all count as spent, and none is accepted.
    assert (b.correct, b.tokens, b.generated) == (0, 150, 156)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0.0, 1.0])), min_size=1, max_size=6),
    st.integers(1, 9),
)
def test_rejection_equals_the_mean_over_all_orders(
    answers: list[tuple[int, float]], maximum: int
) -> None:
    run = Run("x", tuple(Sample("q", tokens, tokens, right) for tokens, right in answers))

    def draw_until_accepted(order: tuple[tuple[int, float], ...]) -> tuple[int, float]:
        paid = 0
        for tokens, right in order:
            paid += tokens
            if tokens <= maximum:
                return paid, right
        return paid, 0.0

    outcomes = [draw_until_accepted(order) for order in permutations(answers)]
    (resulting,) = rejection(run, maximum).samples
    assert resulting.tokens == pytest.approx(mean(paid for paid, _ in outcomes))
    assert resulting.correct == pytest.approx(mean(right for _, right in outcomes))
