"""The conditions that a run compares: budgets, continuations, tiers, efforts, and options."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from proctor.evaluation.options.thinking import EarlyExit, Parallel

BUDGET_FIELD = "max_thinking_tokens"
"""Proctor's request field for the cap; vLLM's own is `thinking_token_budget`."""

NO_MAXIMUM = -1

ROUTER = "auto"
"""The name of the tier that the router chooses."""


class Kind(StrEnum):
    """The kind of budget that a condition sets."""

    CAP = "cap"
    CONTINUATIONS = "continuations"
    TIER = "tier"
    EFFORT = "effort"


@dataclass(frozen=True, slots=True)
class Condition:
    """A budget under which questions are asked, and how it is spent.

    Attributes:
        kind: the kind of budget.
        value: thinking tokens (`NO_MAXIMUM` is no cap), a number of continuations, or the name
            of a tier or of an effort.
        votes: the number of answers among which a cap's tokens are divided equally, each by a
            request of its own; the report lets them vote.
        early_exit: when the server ends the thinking early; None is never.
        parallel: the chains that the server lets share the budget; None is one chain.
    """

    kind: Kind
    value: int | str
    votes: int = 1
    early_exit: EarlyExit | None = None
    parallel: Parallel | None = None

    @property
    def name(self) -> str:
        """The name in reports."""
        return " ".join([self._budget_name, *(f"+ {each}" for each in self.options)])

    @property
    def _budget_name(self) -> str:
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
    def options(self) -> tuple[str, ...]:
        """The names of the options, such as "early exit entropy"; empty without any."""
        exits = () if self.early_exit is None else (f"early exit {self.early_exit.name}",)
        chains = () if self.parallel is None else (f"parallel {self.parallel.name}",)
        return (*exits, *chains)

    @property
    def without_options(self) -> "Condition":
        """The condition with the same budget and no options."""
        return replace(self, early_exit=None, parallel=None)

    @property
    def is_fixed(self) -> bool:
        """Whether every question gets the same budget, in one answer by one chain."""
        routed = self.kind == Kind.TIER and self.value == ROUTER
        return self.votes == 1 and not self.options and not routed

    @property
    def max_tokens(self) -> int | None:
        """The maximum of an answer's thinking tokens, or None without a cap."""
        if self.kind != Kind.CAP or self.value == NO_MAXIMUM:
            return None
        return int(self.value) // self.votes

    @property
    def proctor_only(self) -> bool:
        """Whether only Proctor supports the request fields."""
        return self.kind in (Kind.CONTINUATIONS, Kind.TIER) or bool(self.options)

    def fields(self, budget_field: str = BUDGET_FIELD) -> dict[str, Any]:
        """Return the fields of a request.

        Args:
            budget_field: the server's request field for the cap.
        """
        thinking: dict[str, Any] = {}
        if self.kind == Kind.CONTINUATIONS:
            thinking["continuations"] = self.value
        if self.early_exit is not None:
            thinking["early_exit"] = self.early_exit.to_json()
        if self.parallel is not None:
            thinking["parallel"] = self.parallel.to_json()
        return self._budget_fields(budget_field) | ({"thinking": thinking} if thinking else {})

    def _budget_fields(self, budget_field: str) -> dict[str, Any]:
        match self.kind:
            case Kind.CAP if self.max_tokens is None and budget_field != BUDGET_FIELD:
                return {}
            case Kind.CAP | Kind.CONTINUATIONS:
                return {budget_field: NO_MAXIMUM if self.max_tokens is None else self.max_tokens}
            case Kind.TIER:
                return {"budget_tier": self.value}
            case Kind.EFFORT:
                return {"reasoning_effort": self.value}

    def to_json(self) -> dict[str, Any]:
        """Return the condition as it is stored."""
        stored: dict[str, Any] = {"kind": self.kind, "value": self.value, "votes": self.votes}
        if self.early_exit is not None:
            stored["early_exit"] = self.early_exit.to_json()
        if self.parallel is not None:
            stored["parallel"] = self.parallel.to_json()
        return stored

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Condition":
        """Parse the output of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: if it is invalid.
        """
        fields = {**stored, "kind": Kind(stored["kind"])}
        if "early_exit" in fields:
            fields["early_exit"] = EarlyExit(**fields["early_exit"])
        if "parallel" in fields:
            fields["parallel"] = Parallel(**fields["parallel"])
        return cls(**fields)
