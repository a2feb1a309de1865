"""The tensor table is the reference machine, slot by slot."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from budget import Machine, Markers, TokenBudget
from budget.processors.table import NO_TOKEN, BudgetTable
from tests.budget.strategies import EOS, Sampler, budgets, markers

SLOTS = 4
LENGTH = 200


class Occupant:
    """One request in a slot, as the reference sees it."""

    def __init__(self, budget: TokenBudget, seen: Markers) -> None:
        self.budget = budget
        self.machine = Machine(budget, seen)
        self.attempts: list[int] = []
        self.tokens: list[int] = []

    def step(self, number: int) -> tuple[int, bool]:
        token, attempted = Sampler(self.machine).next(number)
        if attempted:
            self.attempts.append(len(self.tokens))
        self.machine.advance(token, attempted)
        self.tokens.append(token)
        return token, attempted

    @property
    def over(self) -> bool:
        return self.tokens[-1:] == [EOS] or len(self.tokens) == LENGTH


def none_as(value: int | None) -> int:
    return NO_TOKEN if value is None else value


def assert_equal(table: BudgetTable, slot: int, occupant: Occupant) -> None:
    machine = occupant.machine
    assert table.thinking[slot].item() == machine.thinking
    assert table.tokens[slot].item() == machine.tokens
    assert table.pending[slot].item() == machine.pending
    assert table.continuations[slot].item() == machine.continuations
    assert table.length[slot].item() == machine.length
    assert table.forced[slot].item() == none_as(machine.forced)
    assert table.guarded[slot].item() == machine.guarded
    assert table.forbidden[slot].item() == none_as(machine.forbidden)
    assert table.free[slot].item() == (machine.thinking and machine.forced is None)
    assert table.record(slot) == occupant.attempts
    if machine.guarded:
        assert table.continuation[slot].item() == machine.continuation[0]
    if machine.thinking:
        assert table.end_token[slot].item() == machine.end_token
        assert {table.closes[slot].item()} - {NO_TOKEN} == machine.closers - {EOS}


@given(st.data())
def test_the_table_equals_the_machine_over_random_batches(data: st.DataObject) -> None:
    seen = data.draw(markers())
    table = BudgetTable(SLOTS, seen, LENGTH, torch.device("cpu"))
    occupants: list[Occupant | None] = [None] * SLOTS
    for _ in range(data.draw(st.integers(1, 40))):
        for slot, occupant in enumerate(occupants):
            if (occupant is None or occupant.over) and data.draw(st.booleans()):
                occupants[slot] = Occupant(data.draw(budgets()), seen)
                table.load(slot, occupants[slot].budget, occupants[slot].machine, [])
        tokens = torch.full((SLOTS,), NO_TOKEN)
        for slot, occupant in enumerate(occupants):
            if occupant is not None and not occupant.over and data.draw(st.integers(0, 5)):
                tokens[slot], table.attempt[slot] = occupant.step(data.draw(st.integers(0, 10**6)))
        table.advance(tokens)
        for slot, occupant in enumerate(occupants):
            if occupant is not None and not occupant.over:
                assert_equal(table, slot, occupant)


@given(markers(), budgets(), st.lists(st.integers(0, 10**6), max_size=60), st.integers(0, 10**6))
def test_a_resumed_request_is_as_if_it_had_never_left(
    seen: Markers, budget: TokenBudget, numbers: list[int], after: int
) -> None:
    occupant = Occupant(budget, seen)
    for number in numbers:
        if not occupant.over:
            occupant.step(number)
    table = BudgetTable(1, seen, LENGTH, torch.device("cpu"))
    table.load(0, budget, occupant.machine, occupant.attempts)
    if not occupant.over:
        assert_equal(table, 0, occupant)
        token, table.attempt[0] = occupant.step(after)
        table.advance(torch.tensor([token]))
    if not occupant.over:
        assert_equal(table, 0, occupant)
