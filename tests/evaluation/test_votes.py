from collections import Counter
from itertools import combinations
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.evaluation.statistics.votes import best_of_k, majority_at_k, pass_at_k


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(1, 8))
def test_pass_at_k_equals_the_share_of_all_draws(right: list[bool], k: int) -> None:
    k = min(k, len(right))
    draws = [*combinations(right, k)]

    assert pass_at_k(len(right), sum(right), k) == pytest.approx(
        sum(any(draw) for draw in draws) / len(draws)
    )


@pytest.mark.parametrize(("samples", "correct", "k"), [(3, 4, 1), (3, 1, 4), (3, 1, 0), (3, -1, 1)])
def test_pass_at_k_refuses_impossible_counts(samples: int, correct: int, k: int) -> None:
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
        (["35", "35.0", "36"], 3, 2 / 3),  # two right answers split their votes
        (["35", None, None], 3, 1.0),  # no answer has no vote
        ([None, None], 2, 0.0),
    ],
)
def test_majority_at_k_by_hand(answers: list[str | None], k: int, chance: float) -> None:
    assert majority_at_k(answers, {"35", "35.0"}, k) == pytest.approx(chance)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=7), st.integers(1, 7))
def test_one_of_the_answers_wins_each_vote(answers: list[str], k: int) -> None:
    k = min(k, len(answers))
    wins = [majority_at_k(answers, {right}, k) for right in Counter(answers)]
    assert sum(wins) == pytest.approx(1)


def test_votes_with_too_many_draws_are_counted_in_groups() -> None:
    answers = [*"aab", *"bba"] * 10 + ["a"]

    assert majority_at_k(answers, {"a"}, 15) == 0.5  # a leads in 2 groups of 4, and one is left
    assert majority_at_k(answers, {"a", "b"}, 15) == 1


@given(
    st.lists(st.tuples(st.integers(-3, 0), st.sampled_from([0.0, 1.0])), min_size=1, max_size=7),
    st.integers(1, 7),
)
def test_best_of_k_equals_the_mean_over_all_draws(answers: list[tuple[int, float]], k: int) -> None:
    k = min(k, len(answers))

    def best(drawn: tuple[tuple[int, float], ...]) -> float:
        top = max(logprob for logprob, _ in drawn)
        return mean(right for logprob, right in drawn if logprob == top)

    expected = mean(best(drawn) for drawn in combinations(answers, k))
    assert best_of_k(answers, k) == pytest.approx(expected)


def test_votes_on_impossible_k_are_refused() -> None:
    with pytest.raises(ValueError, match="maj@k"):
        majority_at_k(["a"], {"a"}, 2)
    with pytest.raises(ValueError, match="best-of-k"):
        best_of_k([(0.0, 1.0)], 0)
