from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.votes import majority_at_k, pass_at_k


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
        (["35", None, None], 3, 1.0),  # who says nothing has no vote
        ([None, None], 2, 0.0),
    ],
)
def test_a_vote(answers: list[str | None], k: int, chance: float) -> None:
    assert majority_at_k(answers, "35", k) == chance


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=7), st.integers(1, 7))
def test_one_of_the_answers_wins_each_vote(answers: list[str], k: int) -> None:
    k = min(k, len(answers))
    assert sum(majority_at_k(answers, right, k) for right in Counter(answers)) == pytest.approx(1)


def test_votes_that_cannot_be_counted() -> None:
    with pytest.raises(ValueError, match="the number of answers"):
        majority_at_k(["a"], "a", 2)
    with pytest.raises(ValueError, match="too many"):
        majority_at_k(["a"] * 40, "a", 20)
