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
        length: tokens generated, where attempts to close are replaced.
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
    def of(cls, rows: Sequence[tuple[int, ...]]) -> "TokenConstraints":
        """Return NumPy arrays of rows as `constraints_on` returns them."""
        constraints = cls(*np.array(rows, dtype=np.int64).T)
        return constraints._replace(
            bars_eos=constraints.bars_eos > 0,
            may_close=constraints.may_close > 0,
            suppresses_close=constraints.suppresses_close > 0,
        )


def constraints_on(machine: BudgetStateMachine) -> tuple[int, ...]:
    """Return the fields of `TokenConstraints` for a machine's next token.

    The length is 0 except where attempts are replaced, which alone depends on it, so that the rows
    of consecutive steps are mostly equal.
    """
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
        machine.length if suppresses_close else 0,
        machine.incomplete_bytes,
        machine.max_incomplete_bytes,
    )
