"""From what a request asks, and a classifier says, to its budget and where that came from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from budget import ThinkingBudget
from server.asked import Asked, Given, contradiction
from server.errors import BadRequest
from server.sections import AUTO, CUSTOM, Tier, either
from server.settings import Settings


class Source(StrEnum):
    """What decided a budget."""

    EXPLICIT = "explicit"
    EFFORT = "effort"
    ROUTER = "router"
    DEFAULT = "default"


TURN = "turn"
"""What cuts a budget of which the same turn has spent some already."""


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


@dataclass(frozen=True, slots=True)
class Resolution:
    """A budget, and where it came from.

    Attributes:
        budget: what holds, as far as the room for it allows.
        asked: what it was before anything cut it.
        tier: the tier that it is of, or None.
        source: what decided.
        field: the request's field that decided, or None.
        minimum_asked: whether the request named the minimum itself; any other
            yields where there is no room for it.
        clamped_by: whose ceilings cut what was asked for.
    """

    budget: ThinkingBudget
    asked: ThinkingBudget
    tier: Tier | None
    source: Source
    field: str | None
    minimum_asked: bool
    clamped_by: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The tier's name, for headers and metrics."""
        return CUSTOM if self.tier is None else self.tier.name

    def after(self, spent: int) -> "Resolution":
        """What is left of it in a turn in which `spent` tokens were thought before."""
        budget = self.budget
        if not spent:
            return self
        least = max(0, budget.min_tokens - spent)
        if budget.max_tokens is None:
            told = (TURN,) if least < budget.min_tokens else ()
            left = replace(budget, min_tokens=least)
            return replace(self, budget=left, clamped_by=(*self.clamped_by, *told))
        most = max(0, budget.max_tokens - spent)
        left = replace(
            budget,
            min_tokens=least,
            max_tokens=most,
            continuations=budget.continuations if most else 0,
        )
        return replace(self, budget=left, clamped_by=(*self.clamped_by, TURN))


def ceilings(settings: Settings) -> tuple[Ceiling, ...]:
    """Those of the operator."""
    operator = settings.ceilings
    return (Ceiling("operator", operator.max_thinking_tokens, operator.tier),)


def wants_router(asked: Asked, settings: Settings) -> bool:
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
    asked: Asked, settings: Settings, level: str | None, above: Sequence[Ceiling]
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
    for ceiling in above:
        resolution = _cut(resolution, ceiling, asked, settings)
    return resolution


def _build(
    asked: Asked, settings: Settings, tier: Tier | None, source: Source, field: str | None
) -> Resolution:
    default = settings.budget.to_budget()
    base = default if tier is None else tier.to_budget(default)
    budget = _override(base, asked)
    return Resolution(budget, budget, tier, source, field, asked.minimum is not None)


def _forbids(asked: Asked) -> bool:
    """Whether a request says by itself that there is to be no thinking."""
    switched_off = asked.switch is not None and not asked.switch.value
    return switched_off or (asked.maximum is not None and asked.maximum.value == 0)


def _choose(
    asked: Asked, settings: Settings, level: str | None
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
    decisive = asked.number or asked.switch
    if decisive is not None:
        return None, Source.EXPLICIT, decisive.field
    return settings.tier(settings.default_tier), Source.DEFAULT, None


def _named(asked: Asked, settings: Settings) -> tuple[Tier, Source, str] | None:
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


def _known(given: Given[str], name: str, settings: Settings) -> Tier:
    tier = settings.tier(name)
    if tier is None:
        names = ", ".join([AUTO, *(tier.name for tier in settings.tiers)])
        raise BadRequest(
            f"'{given.field}' can be {names}, and not '{name[:64]}'", param=given.field
        )
    return tier


def _check_switch(asked: Asked, tier: Tier, named_by: Given[object]) -> None:
    """Refuse a switch that contradicts the tier named."""
    if asked.switch is not None and asked.switch.value is not tier.thinks:
        raise contradiction(named_by, asked.switch)


def _routed(asked: Asked, settings: Settings, level: str) -> Tier:
    """The tier of a level, or the next above that allows what the request insists on."""
    sent_back = asked.continuations is not None and asked.continuations.value > 0
    least = 1 if asked.switch is not None or sent_back else 0
    if asked.minimum is not None:
        least = max(least, asked.minimum.value)
    chosen = settings.tiers.index(settings.tier(settings.router.levels.tier_of(level)))
    for tier in settings.tiers[chosen:]:
        if tier.cap >= least:
            return tier
    return settings.tiers[-1]


def _check_minimum(asked: Asked, tier: Tier | None) -> None:
    """Refuse a minimum that is over the maximum of the tier named."""
    named_by = asked.tier or asked.effort
    if tier is None or asked.minimum is None or asked.maximum is not None or named_by is None:
        return
    if asked.minimum.value > tier.cap:
        raise contradiction(asked.minimum, named_by)


def _override(base: ThinkingBudget, asked: Asked) -> ThinkingBudget:
    """The base, with what the request says in its place."""
    cap, minimum, finer = _cap(base, asked), asked.minimum, asked.finer
    texts = finer.continuation_text
    return replace(
        base,
        min_tokens=_at_most(cap, base.min_tokens) if minimum is None else minimum.value,
        max_tokens=cap,
        continuations=_continuations(base, asked, cap),
        continuation_texts=base.continuation_texts if texts is None else tuple(texts),
        wrap_up_text=either(base.wrap_up_text, finer.wrap_up_text),
        on_loop=either(base.on_loop, finer.on_loop),
        landing=either(base.landing, finer.landing),
        opens=asked.switch is not None and asked.switch.value,
    )


def _cap(base: ThinkingBudget, asked: Asked) -> int | None:
    if _forbids(asked):
        return 0
    if asked.maximum is not None:
        return None if asked.maximum.value == -1 else asked.maximum.value
    if asked.switch is not None and base.disabled:
        return None
    return base.max_tokens


def _continuations(base: ThinkingBudget, asked: Asked, cap: int | None) -> int:
    if asked.continuations is not None:
        return asked.continuations.value
    return 0 if cap == 0 else base.continuations


def _cut(resolution: Resolution, ceiling: Ceiling, asked: Asked, settings: Settings) -> Resolution:
    """The same, no higher than a ceiling."""
    highest = None if ceiling.tier is None else settings.tier(ceiling.tier)
    cut = _lowered(resolution, highest, asked, settings)
    for cap in (ceiling.max_thinking_tokens, None if highest is None else highest.to_cap()):
        cut = replace(cut, budget=_capped(cut.budget, cap))
    if not _took(resolution, cut, asked):
        return cut
    return replace(cut, clamped_by=(*resolution.clamped_by, ceiling.by))


def _took(resolution: Resolution, cut: Resolution, asked: Asked) -> bool:
    """Whether a ceiling took something: of no cap that nobody asked for, it takes nothing."""
    before, after = resolution.budget, cut.budget
    capped = before.max_tokens is not None or asked.maximum is not None
    return cut != resolution and (
        capped
        or cut.tier != resolution.tier
        or after.min_tokens < before.min_tokens
        or after.continuations < before.continuations
        or (asked.switch is not None and after.disabled)
    )


def _lowered(
    resolution: Resolution, highest: Tier | None, asked: Asked, settings: Settings
) -> Resolution:
    """The same of the highest tier, where the request's is above it."""
    tier = resolution.tier
    if tier is None or highest is None or _rank(tier, settings) <= _rank(highest, settings):
        return resolution
    if asked.minimum is not None:
        least = min(asked.minimum.value, highest.cap)
        asked = replace(asked, minimum=Given(asked.minimum.field, int(least)))
    below = _build(asked, settings, highest, resolution.source, resolution.field)
    return replace(below, asked=resolution.asked, clamped_by=resolution.clamped_by)


def _rank(tier: Tier, settings: Settings) -> int:
    return settings.tiers.index(tier)


def _capped(budget: ThinkingBudget, cap: int | None) -> ThinkingBudget:
    if cap is None or (budget.max_tokens is not None and budget.max_tokens <= cap):
        return budget
    return replace(
        budget,
        min_tokens=min(budget.min_tokens, cap),
        max_tokens=cap,
        continuations=budget.continuations if cap else 0,
    )


def _at_most(cap: int | None, number: int) -> int:
    return number if cap is None else min(cap, number)
