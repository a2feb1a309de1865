"""A request's thinking budget, and how limits reduce it."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from proctor.budget import ThinkingBudget
from proctor.server.config.budgets import CUSTOM, Parallel, Tier
from proctor.server.config.thinking.early_exit import EarlyExit
from proctor.server.schemas.responses import Source

TURN = "turn"
"""In `clamped_by`: earlier requests of the same turn have spent part of the budget."""
PROMPT = "prompt"
"""In `clamped_by`: the prompt opens no thinking block, so that the default minimum is dropped."""
ROOM = "room"
"""In `clamped_by`: the context or `max_tokens` leaves less room for thinking."""
PRICE = "price"
"""In `clamped_by`: the tier's maximum price pays for fewer tokens."""
SESSION = "session"
"""In `clamped_by`: the limits of the session leave less."""


class RequestedParts(NamedTuple):
    """Which parts of a budget the request itself sets."""

    minimum: bool
    maximum: bool
    enabled: bool


class Granted(NamedTuple):
    """The parts of a budget that were requested; a budget with less of them is clamped.

    Attributes:
        tier: the tier of the budget.
        minimum: minimum number of thinking tokens.
        maximum: maximum number of thinking tokens; None if neither request nor tier sets one,
            whatever cap applies.
        thinks: the number of continuations, and whether there is any thinking if the request asks
            for it.
    """

    tier: Tier | None
    minimum: int
    maximum: int | None
    thinks: tuple[int, bool]


@dataclass(frozen=True, slots=True)
class Resolution:
    """A thinking budget and its origin.

    Attributes:
        budget: the effective budget.
        requested: the budget before it was clamped.
        tier: the tier of the budget, or None.
        source: what decided the budget.
        field: the request's field that decided it, or None.
        parts: the parts of the budget that the request sets.
        early_exit: when the thinking ends early, or None.
        parallel: the chains that share the budget, or None if there is only one.
        clamped_by: what reduced something that was requested, without duplicates.
        capped_by: what set a cap where none was requested.
        raised_by: the request's field that the tier of the router did not allow, so that a higher
            tier was taken; or None.
    """

    budget: ThinkingBudget
    requested: ThinkingBudget
    tier: Tier | None
    source: Source
    field: str | None
    parts: RequestedParts
    early_exit: EarlyExit | None = None
    parallel: Parallel | None = None
    clamped_by: tuple[str, ...] = ()
    capped_by: tuple[str, ...] = ()
    raised_by: str | None = None

    @property
    def label(self) -> str:
        """The tier's name or "custom", for headers and metrics."""
        return CUSTOM if self.tier is None else self.tier.name

    @property
    def chains(self) -> int:
        """The number of chains of thought for each choice."""
        return 1 if self.parallel is None else self.parallel.chains

    @property
    def minimum_requested(self) -> bool:
        """Whether the request sets the minimum; any other minimum is clamped to the room for it."""
        return self.parts.minimum

    @property
    def granted(self) -> Granted:
        """What remains of the requested budget."""
        budget, parts = self.budget, self.parts
        capped = self.requested.max_tokens is not None or parts.maximum
        return Granted(
            self.tier,
            budget.min_tokens,
            budget.max_tokens if capped else None,
            (budget.continuations, not (parts.enabled and budget.disabled)),
        )

    def clamped(self, by: str, budget: ThinkingBudget, tier: Tier | None) -> "Resolution":
        """Return the resolution with a smaller budget.

        A cap where none was requested does not clamp anything.

        Args:
            by: what reduced the budget.
            budget: the smaller budget.
            tier: its tier.
        """
        reduced = replace(self, budget=budget, tier=tier)
        if reduced.granted != self.granted:
            return replace(reduced, clamped_by=_union(self.clamped_by, by))
        if budget.max_tokens != self.budget.max_tokens:
            return replace(reduced, capped_by=_union(self.capped_by, by))
        return reduced

    def minus_spent(self, spent: int) -> "Resolution":
        """Return what remains in a turn whose earlier requests spent `spent` thinking tokens."""
        budget = self.budget
        maximum = None if budget.max_tokens is None else max(0, budget.max_tokens - spent)
        reduced = with_bounds(budget, max(0, budget.min_tokens - spent), maximum)
        remaining = self.clamped(TURN, reduced, self.tier)
        if remaining.granted.thinks == self.granted.thinks:
            return remaining
        # Thinking is off because a cap is spent, so that the cap's owner counts as clamping too.
        return replace(remaining, clamped_by=_union(self.clamped_by, *self.capped_by, TURN))

    def capped(self, by: str, maximum: int) -> "Resolution":
        """Return the resolution with at most `maximum` thinking tokens, and no larger minimum."""
        budget = self.budget
        maximum = maximum if budget.max_tokens is None else min(budget.max_tokens, maximum)
        reduced = with_bounds(budget, min(budget.min_tokens, maximum), maximum)
        return self.clamped(by, reduced, self.tier)

    def within(self, room: int, by: str) -> "Resolution":
        """Return the resolution clamped to `room` thinking tokens.

        A minimum that the request sets is kept; `proctor.budget.tokenize` rejects it.
        """
        budget = self.budget
        if self.minimum_requested and budget.min_tokens > room:
            return self
        maximum = None if budget.max_tokens is None else min(budget.max_tokens, room)
        reduced = with_bounds(budget, min(budget.min_tokens, room), maximum)
        if not room:
            reduced = replace(reduced, continuations=0)
        return self.clamped(by, reduced, self.tier)


def with_bounds(budget: ThinkingBudget, minimum: int, maximum: int | None) -> ThinkingBudget:
    """Return the budget with another minimum and maximum; 0 at most leaves no continuations."""
    continuations = 0 if maximum == 0 else budget.continuations
    return replace(budget, min_tokens=minimum, max_tokens=maximum, continuations=continuations)


def _union(names: tuple[str, ...], *others: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*names, *others)))
