from collections.abc import Callable
from itertools import permutations
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.evaluation.statistics.samples import Run, Sample
from proctor.evaluation.statistics.strategies import any_right, best_of_n, majority, rejection

# Of a: 1 twice, which is right, and 2 once, of which the model is surest. Of b: never right.
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
    ("way", "k", "right"),
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
def test_by_hand(way: Callable[[Run, int], Run], k: int, right: float) -> None:
    made = way(RUN, k)

    a, b = made.samples
    assert (a.question, b.question) == ("a", "b")
    assert a.correct == pytest.approx(right)
    assert b.correct == 0
    assert (a.tokens, a.generated) == (pytest.approx(20 * k), pytest.approx(22 * k))
    assert made.accuracy == pytest.approx(right / 2)


def test_questions_with_too_few_answers_are_left_out() -> None:
    run = Run("x", (*SAMPLES, Sample("c", 1, 1, 1.0, "1")))
    assert majority(run, 3).questions == ["a", "b"]


def test_rejection_by_hand() -> None:
    made = rejection(RUN, 20)

    a, b = made.samples
    # Two of a's fit. The third is asked before them in one order of three.
    assert a.correct == 1
    assert a.tokens == pytest.approx(15 + 30 / 3)
    # None of b's fits: all are paid for, and none is an answer.
    assert (b.correct, b.tokens, b.generated) == (0, 150, 156)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0.0, 1.0])), min_size=1, max_size=6),
    st.integers(1, 9),
)
def test_rejection_is_what_all_orders_say(answers: list[tuple[int, float]], most: int) -> None:
    run = Run("x", tuple(Sample("q", tokens, tokens, right) for tokens, right in answers))

    def ask(order: tuple[tuple[int, float], ...]) -> tuple[int, float]:
        paid = 0
        for tokens, right in order:
            paid += tokens
            if tokens <= most:
                return paid, right
        return paid, 0.0

    told = [ask(order) for order in permutations(answers)]
    (made,) = rejection(run, most).samples
    assert made.tokens == pytest.approx(mean(paid for paid, _ in told))
    assert made.correct == pytest.approx(mean(right for _, right in told))
