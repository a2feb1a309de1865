"""From what a request asks, and a classifier says, to its budget and where that came from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from proctor.budget import ThinkingBudget
from proctor.server.config.budgets import AUTO, CUSTOM, Tier
from proctor.server.config.section import coalesce
from proctor.server.config.settings import Settings
from proctor.server.errors import BadRequest
from proctor.server.generation.budget_request import BudgetRequest, FieldValue, contradiction
from proctor.server.schemas.responses import Source

TURN = "turn"
"""Cuts a budget of which the same turn has spent some already."""
PROMPT = "prompt"
"""Takes the minimum of a budget, where the prompt opens no thinking and nobody demands one."""
ROOM = "room"
"""Cuts a budget to what the context and `max_tokens` leave for thinking."""
PRICE = "price"
"""Cuts a budget to what the tier's price pays for."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What somebody lets nobody go beyond.

    Attributes:
        by: who, as responses call it: "operator", "key".
        max_thinking_tokens: most thinking tokens; None is any number.
        tier: the name of the highest tier; None is any.
    """

    by: str
    max_thinking_tokens: int | None = None
    tier: str | None = None


class Granted(NamedTuple):
    """What holds of all that was asked for: less of it is a budget that was clamped.

    Attributes:
        tier: that the budget is of.
        minimum: of thinking tokens.
        maximum: likewise; None where nobody asked for one, whatever cap there is.
        thinks: continuations, and whether there is any thinking where the request asks for some.
    """

    tier: Tier | None
    minimum: int
    maximum: int | None
    thinks: tuple[int, bool]


@dataclass(frozen=True, slots=True)
class Resolution:
    """A budget, and where it came from.

    Attributes:
        budget: what holds, as far as the room for it allows.
        asked: what it was before anything cut it.
        tier: the tier that it is of, or None.
        source: what decided.
        field: the request's field that decided, or None.
        request: what the request says.
        clamped_by: what cut something that was asked for, each once.
        capped_by: what has set a cap where nobody asked for one.
    """

    budget: ThinkingBudget
    asked: ThinkingBudget
    tier: Tier | None
    source: Source
    field: str | None
    request: BudgetRequest
    clamped_by: tuple[str, ...] = ()
    capped_by: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The tier's name, for headers and metrics."""
        return CUSTOM if self.tier is None else self.tier.name

    @property
    def minimum_asked(self) -> bool:
        """Whether the request named the minimum; any other yields where there is no room for it."""
        return self.request.minimum is not None

    @property
    def granted(self) -> Granted:
        """What is left of what was asked for."""
        budget, request = self.budget, self.request
        capped = self.asked.max_tokens is not None or request.maximum is not None
        return Granted(
            self.tier,
            budget.min_tokens,
            budget.max_tokens if capped else None,
            (budget.continuations, request.enabled is None or not budget.disabled),
        )

    def limited(self, by: str, budget: ThinkingBudget, tier: Tier | None) -> "Resolution":
        """Return it with a smaller budget, and the name of what made it so.

        A cap that nobody asked for takes nothing.
        """
        less = replace(self, budget=budget, tier=tier)
        if less.granted != self.granted:
            return replace(less, clamped_by=_with(self.clamped_by, by))
        if budget.max_tokens != self.budget.max_tokens:
            return replace(less, capped_by=_with(self.capped_by, by))
        return less

    def after(self, spent: int) -> "Resolution":
        """Return what is left of it in a turn in which `spent` tokens were thought before."""
        budget = self.budget
        most = None if budget.max_tokens is None else max(0, budget.max_tokens - spent)
        reduced = _reduced(budget, max(0, budget.min_tokens - spent), most)
        left = self.limited(TURN, reduced, self.tier)
        if left.granted.thinks == self.granted.thinks:
            return left
        # A cap that took nothing is spent, and so it does.
        return replace(left, clamped_by=_with(self.clamped_by, *self.capped_by, TURN))

    def within(self, room: int, by: str) -> "Resolution":
        """Return what `room` thinking tokens leave of it.

        A minimum that the request named does not yield: who enforces it refuses it.
        """
        budget = self.budget
        if self.minimum_asked and budget.min_tokens > room:
            return self
        most = None if budget.max_tokens is None else min(budget.max_tokens, room)
        reduced = _reduced(budget, min(budget.min_tokens, room), most)
        if not room:
            reduced = replace(reduced, continuations=0)
        return self.limited(by, reduced, self.tier)


def ceilings(settings: Settings) -> tuple[Ceiling, ...]:
    """Those of the operator."""
    operator = settings.ceilings
    return (Ceiling("operator", operator.max_thinking_tokens, operator.tier),)


def wants_router(asked: BudgetRequest, settings: Settings) -> bool:
    """Whether the router is to choose the tier.

    It does if it is asked for by name and no effort is given, and, where it is
    the default, if the request says nothing or no more than to think.
    """
    if asked.effort is not None or _forbids(asked):
        return False
    if asked.tier is not None:
        return asked.tier.value == AUTO
    return asked.number is None and settings.default_tier == AUTO


def resolve(
    asked: BudgetRequest, settings: Settings, level: str | None, above: Sequence[Ceiling]
) -> Resolution:
    """The budget of a request: number over effort or tier over router over default.

    Args:
        asked: what the request says.
        settings: the tiers, and what stands for what.
        level: what the router found, one of `router.LEVELS`; needed where `wants_router`.
        above: cut the result, and are told of.

    Raises:
        BadRequest: if fields contradict each other, or there is no such tier.
        BudgetError: if the budget makes no sense.
    """
    tier, source, field = _choose(asked, settings, level)
    _check_minimum(asked, tier)
    resolution = _build(asked, settings, tier, source, field)
    # Tiers first: a lower one has numbers of its own, which no ceiling has cut yet.
    for ceiling in above:
        resolution = _lowered(resolution, ceiling, settings)
    for ceiling in above:
        resolution = _capped(resolution, ceiling, settings)
    return resolution


def _build(
    asked: BudgetRequest, settings: Settings, tier: Tier | None, source: Source, field: str | None
) -> Resolution:
    default = settings.budget.to_budget()
    base = default if tier is None else tier.to_budget(default)
    budget = _override(base, asked)
    return Resolution(budget, budget, tier, source, field, asked)


def _forbids(asked: BudgetRequest) -> bool:
    """Whether a request says by itself that there is to be no thinking."""
    switched_off = asked.enabled is not None and not asked.enabled.value
    return switched_off or (asked.maximum is not None and asked.maximum.value == 0)


def _choose(
    asked: BudgetRequest, settings: Settings, level: str | None
) -> tuple[Tier | None, Source, str | None]:
    """The tier, what decided for it, and the field that did."""
    named = _named(asked, settings)
    if named is not None:
        return named
    if wants_router(asked, settings):
        if level is None:
            raise ValueError("the router was not asked")
        field = None if asked.tier is None else asked.tier.field
        return _routed(asked, settings, level), Source.ROUTER, field
    decisive = asked.number or asked.enabled
    if decisive is not None:
        return None, Source.EXPLICIT, decisive.field
    return settings.tier(settings.default_tier), Source.DEFAULT, None


def _named(asked: BudgetRequest, settings: Settings) -> tuple[Tier, Source, str] | None:
    """The tier that the request names, by itself or by an effort."""
    tier, effort = asked.tier, asked.effort
    if tier is not None and tier.value == AUTO:
        tier = None
    by_tier = None if tier is None else _known(tier, tier.value, settings)
    by_effort = None if effort is None else settings.tier(settings.efforts.tier_of(effort.value))
    if tier is not None and effort is not None and by_tier != by_effort:
        raise contradiction(tier, effort)
    if tier is not None and by_tier is not None:
        _check_switch(asked, by_tier, tier)
        return by_tier, Source.EXPLICIT, tier.field
    if effort is not None and by_effort is not None:
        _check_switch(asked, by_effort, effort)
        return by_effort, Source.EFFORT, effort.field
    return None


def _known(given: FieldValue[str], name: str, settings: Settings) -> Tier:
    tier = settings.tier(name)
    if tier is None:
        names = ", ".join([AUTO, *(tier.name for tier in settings.tiers)])
        raise BadRequest(
            f"'{given.field}' can be {names}, and not '{name[:64]}'", param=given.field
        )
    return tier


def _check_switch(asked: BudgetRequest, tier: Tier, named_by: FieldValue[object]) -> None:
    """Refuse a switch that contradicts the tier named."""
    if asked.enabled is not None and asked.enabled.value is not tier.thinks:
        raise contradiction(named_by, asked.enabled)


def _routed(asked: BudgetRequest, settings: Settings, level: str) -> Tier:
    """The tier of a level, or the next above that allows what the request insists on."""
    sent_back = asked.continuations is not None and asked.continuations.value > 0
    least = 1 if asked.enabled is not None or sent_back else 0
    if asked.minimum is not None:
        least = max(least, asked.minimum.value)
    chosen = settings.tiers.index(settings.tier(settings.router.levels.tier_of(level)))
    for tier in settings.tiers[chosen:]:
        if tier.cap >= least:
            return tier
    return settings.tiers[-1]


def _check_minimum(asked: BudgetRequest, tier: Tier | None) -> None:
    """Refuse a minimum that is over the maximum of the tier named."""
    named_by = asked.tier or asked.effort
    if tier is None or asked.minimum is None or asked.maximum is not None or named_by is None:
        return
    if asked.minimum.value > tier.cap:
        raise contradiction(asked.minimum, named_by)


def _override(base: ThinkingBudget, asked: BudgetRequest) -> ThinkingBudget:
    """The base, with what the request says in its place."""
    cap, minimum, options = _cap(base, asked), asked.minimum, asked.options
    texts = options.continuation_text
    return replace(
        base,
        min_tokens=_at_most(cap, base.min_tokens) if minimum is None else minimum.value,
        max_tokens=cap,
        continuations=_continuations(base, asked, cap),
        continuation_texts=base.continuation_texts if texts is None else tuple(texts),
        wrap_up_text=coalesce(base.wrap_up_text, options.wrap_up_text),
        on_loop=coalesce(base.on_loop, options.on_loop),
        landing=coalesce(base.landing, options.landing),
        opens=asked.enabled is not None and asked.enabled.value,
    )


def _cap(base: ThinkingBudget, asked: BudgetRequest) -> int | None:
    if _forbids(asked):
        return 0
    if asked.maximum is not None:
        return None if asked.maximum.value == -1 else asked.maximum.value
    if asked.enabled is not None and base.disabled:
        return None
    return base.max_tokens


def _continuations(base: ThinkingBudget, asked: BudgetRequest, cap: int | None) -> int:
    if asked.continuations is not None:
        return asked.continuations.value
    return 0 if cap == 0 else base.continuations


def _lowered(resolution: Resolution, ceiling: Ceiling, settings: Settings) -> Resolution:
    """Return the same of the ceiling's tier, where the request's is above it."""
    tier, highest = resolution.tier, _highest(ceiling, settings)
    if tier is None or highest is None or _rank(tier, settings) <= _rank(highest, settings):
        return resolution
    asked = resolution.request
    if asked.minimum is not None:
        least = min(asked.minimum.value, highest.cap)
        asked = replace(asked, minimum=FieldValue(asked.minimum.field, int(least)))
    if not highest.thinks:
        asked = replace(asked, continuations=None)
    budget = _build(asked, settings, highest, resolution.source, resolution.field).budget
    return resolution.limited(ceiling.by, budget, highest)


def _highest(ceiling: Ceiling, settings: Settings) -> Tier | None:
    return None if ceiling.tier is None else settings.tier(ceiling.tier)


def _rank(tier: Tier, settings: Settings) -> int:
    return settings.tiers.index(tier)


def _capped(resolution: Resolution, ceiling: Ceiling, settings: Settings) -> Resolution:
    """Return the same, no higher than the ceiling's numbers."""
    budget, highest = resolution.budget, _highest(ceiling, settings)
    of_tier = None if highest is None else highest.to_cap()
    caps = (budget.max_tokens, ceiling.max_thinking_tokens, of_tier)
    most = min((cap for cap in caps if cap is not None), default=None)
    reduced = _reduced(budget, _at_most(most, budget.min_tokens), most)
    return resolution.limited(ceiling.by, reduced, resolution.tier)


def _reduced(budget: ThinkingBudget, least: int, most: int | None) -> ThinkingBudget:
    continuations = 0 if most == 0 else budget.continuations
    return replace(budget, min_tokens=least, max_tokens=most, continuations=continuations)


def _at_most(cap: int | None, number: int) -> int:
    return number if cap is None else min(cap, number)


def _with(names: tuple[str, ...], *more: str) -> tuple[str, ...]:
    """Return the names with more of them, each once."""
    return tuple(dict.fromkeys((*names, *more)))
