from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.server.config.budgets import VoteMethod
from proctor.server.generation.base import AnswerVotes
from proctor.server.generation.parallel.summary import summarize
from proctor.server.generation.parallel.votes import Votes

Ballots = Sequence[tuple[str | None, float]]

WEIGHTS = st.sampled_from([0.25, 0.5, 1.0])
BALLOTS = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), WEIGHTS), max_size=6)


def count(method: VoteMethod, chains: int, ballots: Ballots) -> Votes:
    votes = Votes(method, chains)
    for chain, (answer, weight) in enumerate(ballots):
        votes.add(chain, answer, weight)
    return votes


def winning(ballots: Ballots) -> str | None:
    """Return the answer of the largest weight, of equal ones the first; counted anew."""
    answers = [answer for answer, _ in ballots if answer is not None]
    totals = [sum(weight for other, weight in ballots if other == answer) for answer in answers]
    return answers[totals.index(max(totals))] if answers else None


@given(BALLOTS, st.integers(0, 3))
def test_a_vote_is_decided_as_soon_as_no_chain_can_change_it(
    ballots: list[tuple[str | None, float]], running: int
) -> None:
    if not ballots:
        return
    votes = count(VoteMethod.VOTE, len(ballots) + running, ballots)
    ahead = product([(answer, 1.0) for answer in ("a", "b", "c", "new", None)], repeat=running)
    outcomes = {winning([*ballots, *further]) for further in ahead}

    assert votes.decided is (len(outcomes) == 1)
    assert ballots[votes.winner][0] == winning(ballots)


@pytest.mark.parametrize(
    ("answers", "chains", "decided"),
    [
        ("aa", 3, True),
        ("ab", 3, False),
        ("aab", 5, False),
        ("aab", 4, True),  # b can draw level, and a was first
        ("baa", 4, False),
        ("aaa", 5, True),
    ],
)
def test_majorities(answers: str, chains: int, decided: bool) -> None:
    votes = count(VoteMethod.VOTE, chains, [(answer, 1.0) for answer in answers])
    assert votes.decided is decided
    assert answers[votes.winner] == "a" or not decided


def test_the_first_agreement_decides() -> None:
    votes, decided = Votes(VoteMethod.FIRST_AGREEMENT, 5), []
    for chain, answer in ((3, "x"), (1, "y"), (4, None), (0, "y")):
        votes.add(chain, answer)
        decided.append(votes.decided)
    assert decided == [False, False, False, True]
    assert votes.winner == 1
    assert votes.answers == (AnswerVotes("y", 2, 2.0), AnswerVotes("x", 1, 1.0))


def test_the_first_answer_wins_if_none_agree() -> None:
    votes = Votes(VoteMethod.FIRST_AGREEMENT, 3)
    for chain, answer in ((2, None), (0, "x"), (1, "y")):
        votes.add(chain, answer)
    assert votes.decided
    assert votes.winner == 0


def test_without_any_answer_the_first_chain_that_ended_wins() -> None:
    votes, decided = Votes(VoteMethod.VOTE, 2), []
    for chain in (1, 0):
        votes.add(chain, None)
        decided.append(votes.decided)
    assert decided == [False, True]
    assert votes.winner == 1
    assert votes.answers == ()


def test_a_summary_accounts_for_every_chain() -> None:
    answers = [AnswerVotes("42", 2, 2.0), AnswerVotes("x" * 100, 1, 1.0)]
    assert summarize(answers, 6, 1).split("\n") == [
        "Votes of 6 chains of thought:",
        "- 42: 2",
        f"- {'x' * 63}…: 1",
        "- no answer: 2",
        "- not needed: 1",
    ]
