"""How a gateway moves the maximum of a request that runs on a replica."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proctor.budget import EndReason, EngineRecord, Move

MOVE_PATH = "/inference/v1/proctor/moves"
"""The path, below a prefix that vLLM's `--api-key` protects."""


@dataclass(frozen=True, slots=True)
class MoveOrder:
    """An order to move a maximum.

    Attributes:
        key: the request's key, see `EngineBudget`.
        target: the new maximum, or None to exit early; see `BudgetStateMachine.move_maximum`.
        reason: the end reason if it is reached.
    """

    key: str
    target: int | None
    reason: EndReason | None

    def to_wire(self) -> dict[str, Any]:
        """Return the order as JSON-compatible data."""
        return {"key": self.key, "target": self.target, "reason": self.reason}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "MoveOrder":
        """Create an order from the result of `to_wire`.

        Raises:
            ValueError: if the mapping is malformed.
        """
        try:
            target, reason = wire["target"], wire["reason"]
            return cls(
                str(wire["key"]),
                None if target is None else int(target),
                None if reason is None else EndReason(reason),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed order: {error}") from error


def move_to_wire(move: Move | None) -> dict[str, Any]:
    """Return the response to an order as JSON-compatible data: the move as it took effect."""
    return EngineRecord(moves=() if move is None else (move,)).to_wire()


def read_move(wire: Mapping[str, Any]) -> Move | None:
    """Return the move in a response, or None if there was none.

    Raises:
        BudgetError: if the response is malformed.
    """
    return next(iter(EngineRecord.from_wire(wire).moves), None)
