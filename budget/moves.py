"""Maxima that move while a choice runs: for an early exit, or to share tokens among choices.

A move takes effect between two tokens. The engine that enforces the budget records where,
because the tokens alone do not tell; with its record, the state is a function of the tokens again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from proctor.budget.budgets import TokenBudget
from proctor.budget.errors import BudgetError
from proctor.budget.outcome import EndReason

EARLY_EXITS = frozenset({EndReason.SETTLED, EndReason.UNSURE})
"""The end reasons of thinking that is closed although its budget is not used up."""


class Move(NamedTuple):
    """A change of a running choice's maximum.

    Attributes:
        position: the number of tokens generated before it took effect.
        maximum: the maximum of thinking tokens from then on.
        reason: the end reason of a thinking that reaches the new maximum, one of `EARLY_EXITS`;
            None leaves it as it was.
    """

    position: int
    maximum: int
    reason: EndReason | None = None


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """What an engine records of a choice beside its tokens.

    Attributes:
        attempts: the positions of tokens that replaced an attempt to close the thinking.
        moves: the changes of its maximum, in order.
    """

    attempts: frozenset[int] = frozenset()
    moves: tuple[Move, ...] = ()

    def __or__(self, later: "EngineRecord") -> "EngineRecord":
        """Return this record and a later one of the same choice as one."""
        return EngineRecord(self.attempts | later.attempts, self.moves + later.moves)

    def until(self, length: int) -> "EngineRecord":
        """Return the record of a choice of which only the first tokens were kept.

        A move remains in force although the tokens before it were lost.
        """
        attempts = frozenset(position for position in self.attempts if position < length)
        moves = tuple(move._replace(position=min(move.position, length)) for move in self.moves)
        return EngineRecord(attempts, moves)

    def to_wire(self) -> dict[str, Any]:
        """Return the record as JSON-compatible data."""
        return {"attempts": sorted(self.attempts), "moves": [list(move) for move in self.moves]}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "EngineRecord":
        """Create a record from the result of `to_wire`.

        Raises:
            BudgetError: if the mapping is malformed.
        """
        try:
            moves = tuple(
                Move(int(position), int(maximum), None if reason is None else EndReason(reason))
                for position, maximum, reason in wire["moves"]
            )
            return cls(frozenset(map(int, wire["attempts"])), moves)
        except (KeyError, TypeError, ValueError) as error:
            raise BudgetError("extra_args", f"malformed record of a choice: {error}") from error


EMPTY_RECORD = EngineRecord()
"""The record of a choice of which there is nothing to record."""


def moved_maximum(
    budget: TokenBudget,
    current: int | None,
    target: int | None,
    *,
    used: int,
    incomplete_bytes: int,
    thinking: bool,
    exiting: bool = False,
) -> int | None:
    """Return where a maximum moves.

    It never moves below the budget's minimum, nor below what is used, and a character that has
    begun is completed. After an early exit it is never raised.

    Args:
        budget: the choice's budget.
        current: its maximum so far; None if it has none.
        target: the new maximum; None is the earliest one that leaves room for the landing and the
            wrap-up, and never above `current`.
        used: the thinking tokens so far, pending ones included.
        incomplete_bytes: bytes missing from the last character.
        thinking: whether a thinking block is open.
        exiting: whether it was moved for an early exit before.

    Returns:
        The maximum, or None if it does not move.
    """
    least = max(budget.minimum, used + (incomplete_bytes if thinking else 0))
    if exiting and target is not None and current is not None:
        target = min(target, current)
    if target is None:
        closing = max(budget.landing, incomplete_bytes) + len(budget.wrap_up_ids)
        target = used + (closing if thinking else 0)
        target = target if current is None else min(target, current)
    maximum = max(least, target)
    return None if maximum == current else maximum
