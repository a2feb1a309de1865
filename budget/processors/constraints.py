"""What a budget demands of the next token, for the rows of a batch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from proctor.budget.machine import BudgetStateMachine
from proctor.budget.phases import Phase
from proctor.budget.processors.backend import Array
from proctor.budget.processors.forced_sequences import NO_TOKEN


class TokenConstraints(NamedTuple):
    """The constraints on the next token of some rows; every array has shape [rows].

    Arrays are int64 unless stated otherwise.

    Attributes:
        forced: the token that must come next, or NO_TOKEN.
        barred: the matcher's state if tokens are masked that would open a block
            although the maximum is reached, else NO_TOKEN; see `MarkerMatcher.barred`.
        bars_eos: bool; whether end-of-turn tokens are masked.
        may_close: bool; whether the next token is sampled and may close the thinking.
        suppresses_close: bool; whether an attempt to close becomes a continuation.
        continuation: the first token of the next continuation.
        end: the next token of the end marker, in rows that are thinking.
        matcher_state: the matcher's state.
        length: tokens generated.
        incomplete_bytes: bytes missing from the last character.
        max_incomplete_bytes: the maximum of bytes missing after the next token.
    """

    forced: Array
    barred: Array
    bars_eos: Array
    may_close: Array
    suppresses_close: Array
    continuation: Array
    end: Array
    matcher_state: Array
    length: Array
    incomplete_bytes: Array
    max_incomplete_bytes: Array

    @classmethod
    def of(cls, machines: Sequence[BudgetStateMachine]) -> "TokenConstraints":
        """Return the constraints of reference machines, as NumPy arrays."""
        columns = np.array([_constraints(machine) for machine in machines], dtype=np.int64).T
        constraints = cls(*columns)
        return constraints._replace(
            bars_eos=constraints.bars_eos > 0,
            may_close=constraints.may_close > 0,
            suppresses_close=constraints.suppresses_close > 0,
        )


def _constraints(machine: BudgetStateMachine) -> tuple[int, ...]:
    """Return the fields of `TokenConstraints` for one row."""
    is_sampling = machine.phase is Phase.THINKING
    suppresses_close = machine.suppresses_close
    return (
        NO_TOKEN if machine.forced is None else machine.forced,
        machine.matcher_state if machine.barred else NO_TOKEN,
        machine.bars_eos,
        is_sampling and not suppresses_close,
        suppresses_close,
        machine.continuation[0] if suppresses_close else NO_TOKEN,
        machine.end_token if machine.thinking else NO_TOKEN,
        machine.matcher_state,
        machine.length,
        machine.incomplete_bytes,
        machine.max_incomplete_bytes,
    )
