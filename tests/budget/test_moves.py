"""Maxima that move while a choice runs: what they guarantee, and that a replay agrees."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.budget import (
    BudgetError,
    BudgetStateMachine,
    EndReason,
    EngineRecord,
    Markers,
    Move,
    TokenBudget,
    Vocabulary,
    replay,
)
from proctor.budget.moves import moved_maximum
from proctor.budget.phases import Phase
from tests.budget.strategies import EOS, Sampler, budgets, markers_and_vocabularies, moves
from tests.budget.test_machine import copied, state_of

ONE = Markers(start=(6,), end=(7,), eos=frozenset({EOS}))
MarkersAndVocabulary = tuple[Markers, Vocabulary]
steps = st.lists(st.tuples(st.integers(0, 10**6), st.none() | st.none() | moves()), max_size=80)
Steps = list[tuple[int, tuple[int | None, EndReason | None] | None]]


def play(machine: BudgetStateMachine, wanted: Steps) -> tuple[list[int], EngineRecord]:
    """Run a machine to the end of its turn; return the tokens and what an engine records."""
    tokens: list[int] = []
    record = EngineRecord()
    for number, target in wanted:
        token, attempted = Sampler(machine, machine.vocabulary).next(number)
        machine.advance(token, attempted)
        record |= EngineRecord(frozenset([len(tokens)] if attempted else []))
        tokens.append(token)
        if token == EOS:
            break
        move = None if target is None else machine.move_maximum(*target)
        record |= EngineRecord(moves=() if move is None else (move,))
    return tokens, record


@given(markers_and_vocabularies(), budgets(), steps)
def test_thinking_never_passes_a_maximum_that_moves(
    pair: MarkersAndVocabulary, budget: TokenBudget, wanted: Steps
) -> None:
    machine = BudgetStateMachine(budget, *pair)
    for number, target in wanted:
        machine.advance(*Sampler(machine, machine.vocabulary).next(number))
        if target is not None:
            machine.move_maximum(*target)
        cut_here = copied(machine)
        cut_here.flush()
        assert machine.maximum is None or cut_here.tokens <= machine.maximum


@given(markers_and_vocabularies(), budgets(), steps)
def test_a_moved_maximum_keeps_the_minimum(
    pair: MarkersAndVocabulary, budget: TokenBudget, wanted: Steps
) -> None:
    machine = BudgetStateMachine(budget, *pair)
    for number, target in wanted:
        was_thinking = machine.thinking
        machine.advance(*Sampler(machine, machine.vocabulary).next(number))
        if was_thinking and not machine.thinking and not machine.loop_closed:
            assert machine.tokens >= budget.minimum
        if target is not None:
            machine.move_maximum(*target)


@given(markers_and_vocabularies(), budgets(), steps)
def test_a_replay_with_the_record_reaches_the_same_state(
    pair: MarkersAndVocabulary, budget: TokenBudget, wanted: Steps
) -> None:
    machine = BudgetStateMachine(budget, *pair)
    tokens, record = play(machine, wanted)
    assert EngineRecord.from_wire(record.to_wire()) == record
    again = replay(budget, pair[0], tokens, record.attempts, pair[1], record.moves)
    assert state_of(again) == state_of(machine)
    assert again.outcome(EndReason.LENGTH) == machine.outcome(EndReason.LENGTH)


@given(markers_and_vocabularies(), budgets(), st.lists(st.integers(0, 10**6)), st.integers(0, 60))
def test_an_early_exit_closes_within_the_landing_and_the_wrap_up(
    pair: MarkersAndVocabulary, budget: TokenBudget, before: list[int], seed: int
) -> None:
    machine = BudgetStateMachine(budget, *pair)
    for number in before:
        machine.advance(*Sampler(machine, machine.vocabulary).next(number))
    used, missing = machine.tokens + machine.pending, machine.incomplete_bytes
    if machine.phase is not Phase.THINKING or machine.move_maximum(None, EndReason.SETTLED) is None:
        return
    latest = used + max(budget.landing, missing) + len(budget.wrap_up_ids)
    for step in range(latest + 60):
        if not machine.thinking:
            break
        machine.advance(*Sampler(machine, machine.vocabulary).next(seed * 7919 + step * 31))
    assert not machine.thinking
    assert machine.tokens <= max(latest, budget.minimum)


def test_end_reasons_of_early_exits() -> None:
    budget = TokenBudget(maximum=9, landing=4, wrap_up_ids=(3,))
    sentences = Vocabulary.from_bytes([b"a", b"b", b". ", b"c", b"d", b"e"])
    machine = replay(budget, ONE, [0, 1], vocabulary=sentences)
    assert machine.move_maximum(None, EndReason.SETTLED) == Move(2, 7, EndReason.SETTLED)
    for token in (1, 2, 3, 7, 0):  # up to the end of the sentence, then the wrap-up
        machine.advance(token)
    assert machine.outcome(EndReason.LENGTH).end_reason is EndReason.SETTLED
    assert machine.tokens == 5

    hard = replace(budget, landing=0, wrap_up_ids=())
    for reason in (EndReason.SETTLED, EndReason.UNSURE):
        machine = replay(hard, ONE, [0, 1], vocabulary=sentences)
        assert machine.move_maximum(None, reason) == Move(2, 2, reason)
        assert machine.forced == 7
        assert machine.move_maximum(None, reason) is None  # closing already
        machine.advance(7)
        assert machine.outcome(EndReason.LENGTH).end_reason is reason

    machine = replay(hard, ONE, [0, 1, 2, 3, 4, 5, 0, 1], vocabulary=sentences)
    assert machine.move_maximum(20) == Move(8, 20)  # given more
    machine.advance(2)
    assert machine.forced is None
    assert machine.move_maximum(9) == Move(9, 9)  # and less again
    machine.advance(7)
    assert machine.outcome(EndReason.LENGTH).end_reason is EndReason.MAX


def test_a_thinking_that_closes_by_itself_after_the_order_to_exit_ends_naturally() -> None:
    machine = replay(TokenBudget(maximum=40, landing=5), ONE, [0, 1])
    machine.move_maximum(None, EndReason.SETTLED)
    machine.advance(7)
    assert machine.outcome(EndReason.LENGTH).end_reason is EndReason.NATURAL


def test_an_early_exit_ends_the_continuations_but_not_the_minimum() -> None:
    budget = TokenBudget(maximum=40, landing=5, continuations=2, continuation_ids=((1,),))
    machine = replay(budget, ONE, [0, 1])
    was_suppressed = machine.suppresses_close
    machine.move_maximum(None, EndReason.SETTLED)
    assert (was_suppressed, machine.suppresses_close) == (True, False)

    machine = replay(replace(budget, minimum=10), ONE, [0, 1])
    assert machine.move_maximum(None, EndReason.SETTLED) == Move(2, 10, EndReason.SETTLED)
    assert machine.suppresses_close


def test_a_continuation_is_cut_between_its_characters() -> None:
    """A maximum that moves into a continuation cuts it like one that was there before."""
    vocabulary = Vocabulary.from_bytes([b"a", b"W", b"\xc3", b"\xa4", b"b", b"c"])
    budget = TokenBudget(maximum=40, minimum=3, continuation_ids=((1, 2, 3, 4),))
    machine = replay(budget, ONE, [0, 1], frozenset({1}), vocabulary)
    assert machine.move_maximum(3) == Move(2, 3)
    assert machine.forced is None  # the next character takes two tokens, one is left
    machine = replay(budget, ONE, [0, 1, 2], frozenset({1}), vocabulary)
    assert machine.move_maximum(0) == Move(3, 4)  # the character that has begun is completed
    machine.advance(3)
    assert machine.forced == 7


def test_no_move_takes_an_early_exit_back() -> None:
    machine = replay(TokenBudget(maximum=40, landing=5), ONE, [0, 1])
    assert machine.move_maximum(None, EndReason.UNSURE) == Move(2, 7, EndReason.UNSURE)
    assert machine.move_maximum(60) is None
    assert machine.move_maximum(4) == Move(2, 4)  # lowered, as any other
    machine.advance(2)
    assert machine.move_maximum(7) is None
    machine.advance(3)
    assert machine.forced == 7
    machine.advance(7)
    assert machine.outcome(EndReason.LENGTH).end_reason is EndReason.UNSURE


def test_only_early_exits_are_reasons() -> None:
    with pytest.raises(ValueError, match="settled, unsure"):
        BudgetStateMachine(TokenBudget(maximum=4), ONE).move_maximum(None, EndReason.MAX)


@pytest.mark.parametrize(
    "wire",
    [{}, {"attempts": [1]}, {"attempts": ["x"], "moves": []}, {"attempts": [], "moves": [[1, 2]]}],
)
def test_malformed_records_are_refused(wire: dict[str, list[object]]) -> None:
    with pytest.raises(BudgetError, match="malformed record"):
        EngineRecord.from_wire(wire)


def test_a_record_is_cut_with_the_tokens() -> None:
    record = EngineRecord(frozenset({1, 5}), (Move(2, 9), Move(6, 7, EndReason.UNSURE)))
    kept = EngineRecord(frozenset({1}), (Move(2, 9), Move(4, 7, EndReason.UNSURE)))
    assert record.until(4) == kept


def test_a_maximum_stays_where_it_is() -> None:
    budget = TokenBudget(minimum=3, maximum=8, continuation_ids=((1,),))
    assert moved_maximum(budget, 8, 8, used=5, incomplete_bytes=0, thinking=True) is None
    assert moved_maximum(budget, 5, None, used=5, incomplete_bytes=0, thinking=True) is None
    assert moved_maximum(budget, 8, 2, used=5, incomplete_bytes=0, thinking=True) == 5
    assert moved_maximum(budget, None, None, used=5, incomplete_bytes=0, thinking=True) == 5


def test_moves_after_the_last_token_are_ignored() -> None:
    """The engine may be ahead of the tokens that the gateway received."""
    machine = replay(TokenBudget(maximum=9), ONE, [0, 1], moves=(Move(2, 8), Move(3, 3)))
    assert machine.maximum == 8
    assert machine.move_maximum(8) is None  # it stays
