"""What is varied: budgets, continuations, tiers, efforts."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

BUDGET_FIELD = "max_thinking_tokens"
"""Our own name for the cap; vLLM, say, calls its own `thinking_token_budget`."""

NO_MAXIMUM = -1


class Kind(StrEnum):
    """What a setting sets."""

    CAP = "cap"
    CONTINUATIONS = "continuations"
    TIER = "tier"
    EFFORT = "effort"


@dataclass(frozen=True, slots=True)
class Condition:
    """What is asked for beside the question.

    Attributes:
        kind: what is set.
        value: to what: thinking tokens (`NO_MAXIMUM` is no cap), a number of
            continuations, or the name of a tier or an effort.
        votes: how many answers share a cap's tokens; each has that part of them.
    """

    kind: Kind
    value: int | str
    votes: int = 1

    @property
    def name(self) -> str:
        """What reports call it."""
        match self.kind:
            case Kind.CAP if self.value == NO_MAXIMUM:
                return "no maximum"
            case Kind.CAP if self.votes > 1:
                return f"{self.votes} of at most {self.most}"
            case Kind.CAP:
                return f"at most {self.value}"
            case Kind.CONTINUATIONS:
                return f"{self.value} continuation" + ("" if self.value == 1 else "s")
            case _:
                return f"{self.kind} {self.value}"

    @property
    def most(self) -> int | None:
        """The most thinking tokens of an answer, or None if it sets none."""
        if self.kind != Kind.CAP or self.value == NO_MAXIMUM:
            return None
        return int(self.value) // self.votes

    @property
    def proctors_own(self) -> bool:
        """Whether only Proctor knows the fields."""
        return self.kind in (Kind.CONTINUATIONS, Kind.TIER)

    def fields(self, budget_field: str = BUDGET_FIELD) -> dict[str, Any]:
        """What a request has to say.

        Args:
            budget_field: what the server calls the cap.
        """
        match self.kind:
            case Kind.CAP if self.most is None and budget_field != BUDGET_FIELD:
                return {}
            case Kind.CAP:
                return {budget_field: NO_MAXIMUM if self.most is None else self.most}
            case Kind.CONTINUATIONS:
                thinking = {"continuations": self.value}
                return {budget_field: NO_MAXIMUM, "thinking": thinking}
            case Kind.TIER:
                return {"budget_tier": self.value}
            case Kind.EFFORT:
                return {"reasoning_effort": self.value}

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "Condition":
        """Read what `to_json` made.

        Raises:
            ValueError, TypeError: if it is something else.
        """
        return cls(**{**kept, "kind": Kind(kept["kind"])})
