"""The conditions that a run compares: budgets, continuations, tiers, efforts."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

BUDGET_FIELD = "max_thinking_tokens"
"""Proctor's request field for the cap; vLLM's own is `thinking_token_budget`."""

NO_MAXIMUM = -1


class Kind(StrEnum):
    """The kind of budget that a condition sets."""

    CAP = "cap"
    CONTINUATIONS = "continuations"
    TIER = "tier"
    EFFORT = "effort"


@dataclass(frozen=True, slots=True)
class Condition:
    """A budget under which questions are asked.

    Attributes:
        kind: the kind of budget.
        value: thinking tokens (`NO_MAXIMUM` is no cap), a number of continuations, or the name
            of a tier or of an effort.
        votes: the number of answers among which a cap's tokens are divided equally.
    """

    kind: Kind
    value: int | str
    votes: int = 1

    @property
    def name(self) -> str:
        """The name in reports."""
        match self.kind:
            case Kind.CAP if self.value == NO_MAXIMUM:
                return "no maximum"
            case Kind.CAP if self.votes > 1:
                return f"{self.votes} of at most {self.max_tokens}"
            case Kind.CAP:
                return f"at most {self.value}"
            case Kind.CONTINUATIONS:
                return f"{self.value} continuation" + ("" if self.value == 1 else "s")
            case _:
                return f"{self.kind} {self.value}"

    @property
    def max_tokens(self) -> int | None:
        """The maximum of an answer's thinking tokens, or None without a cap."""
        if self.kind != Kind.CAP or self.value == NO_MAXIMUM:
            return None
        return int(self.value) // self.votes

    @property
    def proctor_only(self) -> bool:
        """Whether only Proctor supports the request fields."""
        return self.kind in (Kind.CONTINUATIONS, Kind.TIER)

    def fields(self, budget_field: str = BUDGET_FIELD) -> dict[str, Any]:
        """Return the fields of a request.

        Args:
            budget_field: the server's request field for the cap.
        """
        match self.kind:
            case Kind.CAP if self.max_tokens is None and budget_field != BUDGET_FIELD:
                return {}
            case Kind.CAP:
                return {budget_field: NO_MAXIMUM if self.max_tokens is None else self.max_tokens}
            case Kind.CONTINUATIONS:
                thinking = {"continuations": self.value}
                return {budget_field: NO_MAXIMUM, "thinking": thinking}
            case Kind.TIER:
                return {"budget_tier": self.value}
            case Kind.EFFORT:
                return {"reasoning_effort": self.value}

    def to_json(self) -> dict[str, Any]:
        """Return the condition as it is stored."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Condition":
        """Parse the output of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: if it is invalid.
        """
        return cls(**{**stored, "kind": Kind(stored["kind"])})
