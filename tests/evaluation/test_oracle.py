"""The perfect router, with and without a look at the answers that it is judged by."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.evaluation.statistics.oracle import (
    can_hold_out,
    held_out_router,
    line,
    perfect_router,
)
from proctor.evaluation.statistics.samples import Run, Sample
from tests.evaluation.factories import run, simulate

CHEAP = Run(
    "cheap", tuple(Sample(q, 10, 12, right) for q, right in zip("abc", (1, 0, 0), strict=True))
)
DEAR = Run(
    "dear", tuple(Sample(q, 50, 55, right) for q, right in zip("abc", (1, 1, 0), strict=True))
)

answers = st.tuples(st.integers(0, 9), st.sampled_from([0.0, 0.5, 1.0]))


def test_the_perfect_router_by_hand() -> None:
    routed = perfect_router([DEAR, CHEAP])
    # The cheapest that is right for a and b, and the cheapest for c.
    assert [(each.tokens, each.generated, each.correct) for each in routed.samples] == [
        (10, 12, 1),
        (50, 55, 1),
        (10, 12, 0),
    ]
    # An answer to b costs 40 tokens more.
    assert perfect_router([DEAR, CHEAP], price=0.99 / 40).accuracy == pytest.approx(2 / 3)
    assert perfect_router([DEAR, CHEAP], price=1.01 / 40).accuracy == pytest.approx(1 / 3)
    assert line(perfect_router, [DEAR, CHEAP]) == [(10, 1 / 3), (70 / 3, 2 / 3)]


@given(st.lists(st.lists(answers, min_size=3, max_size=3), min_size=1, max_size=6))
def test_no_condition_and_no_coin_beats_the_perfect_router(
    rows: list[list[tuple[int, float]]],
) -> None:
    runs = [
        Run(
            str(at),
            tuple(
                Sample(str(question), *(tokens, tokens), right)
                for question, (tokens, right) in enumerate(column)
            ),
        )
        for at, column in enumerate(zip(*rows, strict=True))
    ]
    for price in (0.0, 0.01, 0.1, 1.0):
        routed = perfect_router(runs, price)
        worth = [each.accuracy - price * each.mean_tokens for each in runs]
        assert routed.accuracy - price * routed.mean_tokens >= max(worth) - 1e-9
    assert perfect_router(runs).accuracy >= max(each.accuracy for each in runs) - 1e-9


def test_luck_counts_for_the_perfect_router_only() -> None:
    """Five conditions guess, each right once in two: no choice between them is any better."""
    generator = np.random.default_rng(7)
    runs = [simulate(generator, [0.5] * 800, 100, 2) for _ in range(5)]

    assert perfect_router(runs).accuracy == pytest.approx(1 - 0.5**5, abs=0.02)
    assert held_out_router(runs).accuracy == pytest.approx(0.5, abs=0.05)


def test_held_out_it_recognizes_what_the_questions_are() -> None:
    """Half of the questions are always right when answered cheaply, the others never."""
    easy = np.arange(400) % 2
    generator = np.random.default_rng(8)
    cheap, dear = (
        simulate(generator, chances, tokens, 3)
        for chances, tokens in ((easy.astype(np.float64), 10), (np.ones(400), 100))
    )
    seen, held_out = perfect_router([cheap, dear]), held_out_router([cheap, dear], price=0.003)

    assert seen.accuracy == held_out.accuracy == 1
    assert held_out.mean_tokens == pytest.approx(55, rel=0.1)
    assert seen.mean_tokens == pytest.approx(55, rel=0.1)
    assert {each.index for each in held_out.samples} == {0, 1, 2}


def test_an_answer_is_never_judged_by_itself() -> None:
    """Only one of three answers is right, so that the others never speak for it."""
    lucky = {str(at): [float(at % 3 == index) for index in range(3)] for at in range(30)}
    wrong = {name: [0.0, 0.0, 0.0] for name in lucky}
    runs = [_indexed(run("lucky", lucky, 20)), _indexed(run("wrong", wrong, 10))]

    # For the right answer two wrong ones, for a wrong one a right and a wrong one: the price of
    # ten tokens is between what the two say, with a third of an answer from all other questions.
    routed = held_out_router(runs, price=0.03)
    assert routed.accuracy == 0
    assert routed.mean_tokens == pytest.approx((2 * 20 + 10) / 3)
    assert perfect_router(runs).accuracy == pytest.approx(1 / 3)


def test_holding_out_needs_a_second_answer_everywhere() -> None:
    assert not can_hold_out([CHEAP, DEAR])
    with pytest.raises(ValueError, match="needs two"):
        held_out_router([CHEAP, DEAR])
    more = Run("more", (*CHEAP.samples, Sample("a", 10, 12, 1.0, index=1)))
    assert not can_hold_out([more, more])


def _indexed(plain: Run) -> Run:
    samples = [
        Sample(each.question, each.tokens, each.generated, each.correct, index=index)
        for group in plain.grouped.values()
        for index, each in enumerate(group)
    ]
    return Run(plain.name, tuple(samples))
