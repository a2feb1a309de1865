from collections import Counter
from itertools import combinations
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.evaluation.statistics.votes import best_of_k, majority_at_k, pass_at_k


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(1, 8))
def test_pass_at_k_is_what_all_draws_say(right: list[bool], k: int) -> None:
    k = min(k, len(right))
    draws = [*combinations(right, k)]

    assert pass_at_k(len(right), sum(right), k) == pytest.approx(
        sum(any(draw) for draw in draws) / len(draws)
    )


@pytest.mark.parametrize(("samples", "correct", "k"), [(3, 4, 1), (3, 1, 4), (3, 1, 0), (3, -1, 1)])
def test_pass_at_k_of_what_cannot_be(samples: int, correct: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@k"):
        pass_at_k(samples, correct, k)


@pytest.mark.parametrize(
    ("answers", "k", "chance"),
    [
        (["35"], 1, 1.0),
        (["35", "36"], 1, 0.5),
        (["35", "36"], 2, 0.5),  # a tie
        (["35", "35", "36"], 3, 1.0),
        (["35", "36", "36"], 3, 0.0),
        (["35", "35.0", "36"], 3, 2 / 3),  # two that are right split their votes
        (["35", None, None], 3, 1.0),  # who says nothing has no vote
        ([None, None], 2, 0.0),
    ],
)
def test_a_vote(answers: list[str | None], k: int, chance: float) -> None:
    assert majority_at_k(answers, {"35", "35.0"}, k) == pytest.approx(chance)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=7), st.integers(1, 7))
def test_one_of_the_answers_wins_each_vote(answers: list[str], k: int) -> None:
    k = min(k, len(answers))
    wins = [majority_at_k(answers, {right}, k) for right in Counter(answers)]
    assert sum(wins) == pytest.approx(1)


def test_too_many_ways_to_draw_are_voted_on_in_groups() -> None:
    answers = [*"aab", *"bba"] * 10 + ["a"]

    assert majority_at_k(answers, {"a"}, 15) == 0.5  # a leads in 2 groups of 4, and one is left
    assert majority_at_k(answers, {"a", "b"}, 15) == 1


@given(
    st.lists(st.tuples(st.integers(-3, 0), st.sampled_from([0.0, 1.0])), min_size=1, max_size=7),
    st.integers(1, 7),
)
def test_the_surest_is_what_all_draws_say(answers: list[tuple[int, float]], k: int) -> None:
    k = min(k, len(answers))

    def surest(drawn: tuple[tuple[int, float], ...]) -> float:
        top = max(sure for sure, _ in drawn)
        return mean(right for sure, right in drawn if sure == top)

    expected = mean(surest(drawn) for drawn in combinations(answers, k))
    assert best_of_k(answers, k) == pytest.approx(expected)


def test_votes_that_cannot_be_counted() -> None:
    with pytest.raises(ValueError, match="maj@k"):
        majority_at_k(["a"], {"a"}, 2)
    with pytest.raises(ValueError, match="best-of-k"):
        best_of_k([(0.0, 1.0)], 0)
