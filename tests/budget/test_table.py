"""Each slot of the table agrees with the reference state machine."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from proctor.budget import BudgetStateMachine, Markers, TokenBudget, Vocabulary
from proctor.budget.processors.backend import Array, ArrayBackend
from proctor.budget.processors.constraints import TokenConstraints
from proctor.budget.processors.forced_sequences import NO_TOKEN
from proctor.budget.processors.table import BudgetTable, State
from proctor.budget.processors.vocabulary_arrays import incomplete_tokens
from tests.budget.strategies import (
    EOS,
    VOCABULARY,
    WORDS,
    Sampler,
    budgets,
    markers_and_vocabularies,
    moves,
    with_raised_minimum,
)

SLOTS = 4
LENGTH = 200


class Occupant:
    """The reference machine of the request in a slot."""

    def __init__(self, budget: TokenBudget, markers: Markers, vocabulary: Vocabulary) -> None:
        self.budget = budget
        self.machine = BudgetStateMachine(budget, markers, vocabulary)
        self._sampler = Sampler(self.machine, vocabulary)
        self.tokens: list[int] = []

    def step(self, number: int) -> tuple[int, bool]:
        token, attempted = self._sampler.next(number)
        self.machine.advance(token, attempted)
        self.tokens.append(token)
        return token, attempted

    @property
    def over(self) -> bool:
        return self.tokens[-1:] == [EOS] or len(self.tokens) == LENGTH


def token_or_none(value: int | None) -> int:
    return NO_TOKEN if value is None else value


def columns(state: State) -> list[Array]:
    return [*state[:-1], *state.loops]


def flags(arrays: ArrayBackend, which: list[bool]) -> Array:
    return arrays.as_int64(which) > 0


def equal(one: Array, other: Array) -> bool:
    return bool((one == other).all())


def assert_equal(table: BudgetTable, slot: int, occupant: Occupant) -> None:
    machine, state = occupant.machine, table.state
    assert state.thinking[slot].item() == machine.thinking
    assert state.tokens[slot].item() == machine.tokens
    assert state.matcher_state[slot].item() == machine.matcher_state
    assert state.pending[slot].item() == machine.pending
    if occupant.budget.answer_minimum:
        assert state.answer_tokens[slot].item() == machine.answer_tokens
    assert state.continuations[slot].item() == machine.continuations
    assert state.length[slot].item() == machine.length
    assert state.looped[slot].item() == machine.looped
    assert state.loop_closed[slot].item() == machine.loop_closed
    assert state.incomplete_bytes[slot].item() == machine.incomplete_bytes
    assert state.partial[slot].item() == machine.partial
    assert state.after_digit[slot].item() == machine.after_digit
    constraint = constraints(table, slot)
    assert constraint.forced.item() == token_or_none(machine.forced)
    assert constraint.suppresses_close.item() == machine.suppresses_close
    assert (constraint.barred.item() == NO_TOKEN) is (not machine.barred)
    assert constraint.barred.item() in (NO_TOKEN, machine.matcher_state)
    assert constraint.bars_eos.item() == machine.bars_eos
    free = machine.thinking and machine.forced is None
    assert constraint.may_close.item() == (free and not machine.suppresses_close)
    assert constraint.max_incomplete_bytes.item() == machine.max_incomplete_bytes
    assert constraint.length.item() == machine.length
    if machine.suppresses_close:
        assert constraint.continuation.item() == machine.continuation[0]
    if machine.thinking:
        assert constraint.end.item() == machine.end_token
        assert constraint.matcher_state.item() == machine.matcher_state


def constraints(table: BudgetTable, slot: int) -> TokenConstraints:
    slots = np.array([slot])
    of_torch = isinstance(table.state.tokens, torch.Tensor)
    return table.constraints(table.state, torch.from_numpy(slots) if of_torch else slots)


def assert_masks(table: BudgetTable, slot: int, occupant: Occupant, vocabulary: Vocabulary) -> None:
    """Assert that the table masks tokens that begin a character which could not be completed."""
    machine = occupant.machine
    splits = dict.fromkeys(range(VOCABULARY), False)
    constraint = constraints(table, slot)
    tokens, lacking = incomplete_tokens(vocabulary)
    chosen = (
        lacking[constraint.incomplete_bytes.item()] > constraint.max_incomplete_bytes.item()
    ).tolist()
    splits.update(zip(tokens.tolist(), chosen, strict=True))
    for token in range(VOCABULARY):
        lacks = vocabulary.incomplete_bytes_after(machine.incomplete_bytes, token)
        assert splits[token] == (lacks > machine.max_incomplete_bytes)


@given(data=st.data())
def test_the_table_equals_the_machine_over_random_batches(
    arrays: ArrayBackend, data: st.DataObject
) -> None:
    markers, vocabulary = data.draw(markers_and_vocabularies())
    table = BudgetTable(SLOTS, markers, arrays, vocabulary)
    occupants: list[Occupant | None] = [None] * SLOTS
    for _ in range(data.draw(st.integers(1, 40))):
        for slot, occupant in enumerate(occupants):
            if (occupant is None or occupant.over) and data.draw(st.booleans()):
                occupants[slot] = new = Occupant(data.draw(budgets()), markers, vocabulary)
                table.load(slot, new.budget, new.machine)
        tokens, attempted = [NO_TOKEN] * SLOTS, [False] * SLOTS
        for slot, occupant in enumerate(occupants):
            if occupant is not None and not occupant.over and data.draw(st.integers(0, 5)):
                tokens[slot], attempted[slot] = occupant.step(data.draw(st.integers(0, 10**6)))
        before = [column + 0 for column in columns(table.state)]
        taken = arrays.as_int64(tokens), flags(arrays, attempted)
        after = table.step(table.state, *taken)
        assert all(map(equal, before, columns(table.state)))
        table.advance(*taken)
        assert all(map(equal, columns(after), columns(table.state)))
        for slot, occupant in enumerate(occupants):
            if occupant is not None and not occupant.over:
                if not data.draw(st.integers(0, 9)):
                    target, reason = data.draw(moves())
                    move = table.move_maximum(slot, occupant.budget, target, reason)
                    assert move == occupant.machine.move_maximum(target, reason)
                assert_equal(table, slot, occupant)
                assert_masks(table, slot, occupant, vocabulary)


@given(
    markers_and_vocabularies(),
    budgets(),
    st.lists(st.integers(0, 10**6), max_size=60),
    st.integers(1, 6),
)
def test_a_resized_table_keeps_its_state(
    arrays: ArrayBackend,
    pair: tuple[Markers, Vocabulary],
    budget: TokenBudget,
    numbers: list[int],
    slots: int,
) -> None:
    markers, vocabulary = pair
    occupant = Occupant(budget, markers, vocabulary)
    table = BudgetTable(SLOTS, markers, arrays, vocabulary)
    table.load(0, budget, occupant.machine)
    for at, number in enumerate(numbers):
        if at == len(numbers) // 2:
            table = table.resized(slots)
        if occupant.over:
            return
        token, attempted = occupant.step(number)
        others = len(table.state.tokens) - 1
        came = [token, *[NO_TOKEN] * others], [attempted, *[False] * others]
        table.advance(arrays.as_int64(came[0]), flags(arrays, came[1]))
        if not occupant.over:
            assert_equal(table, 0, occupant)
            assert_masks(table, 0, occupant, vocabulary)


@given(
    markers_and_vocabularies(),
    budgets(),
    st.lists(st.integers(0, 10**6), max_size=60),
    st.integers(0, 10**6),
)
def test_a_resumed_request_continues_from_its_state(
    arrays: ArrayBackend,
    pair: tuple[Markers, Vocabulary],
    budget: TokenBudget,
    numbers: list[int],
    after: int,
) -> None:
    markers, vocabulary = pair
    occupant = Occupant(budget, markers, vocabulary)
    for number in numbers:
        if not occupant.over:
            occupant.step(number)
    table = BudgetTable(1, markers, arrays, vocabulary)
    table.load(0, budget, occupant.machine)
    if not occupant.over:
        assert_equal(table, 0, occupant)
        token, attempted = occupant.step(after)
        table.advance(arrays.as_int64([token]), flags(arrays, [attempted]))
    if not occupant.over:
        assert_equal(table, 0, occupant)


@given(
    markers_and_vocabularies(),
    budgets().flatmap(with_raised_minimum),
    st.lists(st.integers(0, WORDS - 1), min_size=1, max_size=3),
    st.lists(st.integers(0, 10**6), max_size=6),
)
@settings(max_examples=40)
def test_the_table_equals_the_machine_in_loops(
    arrays: ArrayBackend,
    pair: tuple[Markers, Vocabulary],
    budget: TokenBudget,
    pattern: list[int],
    strays: list[int],
) -> None:
    """With or without a minimum, in the first block and in later ones."""
    markers, vocabulary = pair
    long = replace(budget, maximum=None, wrap_up_ids=(), opened=True)
    worded = replace(vocabulary, weights=b"")
    occupant = Occupant(long, markers, worded)
    table = BudgetTable(2, markers, arrays, worded)
    table.load(1, long, occupant.machine)
    again = (pattern * 70)[:70]
    for number in [*again, *strays, *again, *strays, *again]:
        if occupant.over:
            break
        token, attempted = occupant.step(number)
        table.advance(arrays.as_int64([NO_TOKEN, token]), flags(arrays, [False, attempted]))
        if not occupant.over:
            assert_equal(table, 1, occupant)
