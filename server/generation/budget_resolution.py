"""Resolves a request's budget fields, tiers, the router and ceilings to one thinking budget."""

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
"""In `clamped_by`: earlier requests of the same turn have spent part of the budget."""
PROMPT = "prompt"
"""In `clamped_by`: the prompt opens no thinking block, so that the default minimum is dropped."""
ROOM = "room"
"""In `clamped_by`: the context or `max_tokens` leaves less room for thinking."""
PRICE = "price"
"""In `clamped_by`: the tier's maximum price pays for fewer tokens."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Upper limits for budgets.

    Attributes:
        by: the owner of the limits, as in `clamped_by`: "operator" or "key".
        max_thinking_tokens: maximum number of thinking tokens; None is unlimited.
        tier: the name of the highest tier; None is unlimited.
    """

    by: str
    max_thinking_tokens: int | None = None
    tier: str | None = None


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
        request: the budget fields of the request.
        clamped_by: what reduced something that was requested, without duplicates.
        capped_by: what set a cap where none was requested.
    """

    budget: ThinkingBudget
    requested: ThinkingBudget
    tier: Tier | None
    source: Source
    field: str | None
    request: BudgetRequest
    clamped_by: tuple[str, ...] = ()
    capped_by: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The tier's name or "custom", for headers and metrics."""
        return CUSTOM if self.tier is None else self.tier.name

    @property
    def minimum_requested(self) -> bool:
        """Whether the request sets the minimum; any other minimum is clamped to the room for it."""
        return self.request.minimum is not None

    @property
    def granted(self) -> Granted:
        """What remains of the requested budget."""
        budget, request = self.budget, self.request
        capped = self.requested.max_tokens is not None or request.maximum is not None
        return Granted(
            self.tier,
            budget.min_tokens,
            budget.max_tokens if capped else None,
            (budget.continuations, request.enabled is None or not budget.disabled),
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
        reduced = _with_bounds(budget, max(0, budget.min_tokens - spent), maximum)
        remaining = self.clamped(TURN, reduced, self.tier)
        if remaining.granted.thinks == self.granted.thinks:
            return remaining
        # Thinking is off because a cap is spent, so that the cap's owner counts as clamping too.
        return replace(remaining, clamped_by=_union(self.clamped_by, *self.capped_by, TURN))

    def within(self, room: int, by: str) -> "Resolution":
        """Return the resolution clamped to `room` thinking tokens.

        A minimum that the request sets is kept; `proctor.budget.tokenize` rejects it.
        """
        budget = self.budget
        if self.minimum_requested and budget.min_tokens > room:
            return self
        maximum = None if budget.max_tokens is None else min(budget.max_tokens, room)
        reduced = _with_bounds(budget, min(budget.min_tokens, room), maximum)
        if not room:
            reduced = replace(reduced, continuations=0)
        return self.clamped(by, reduced, self.tier)


def ceilings(settings: Settings) -> tuple[Ceiling, ...]:
    """Return the operator's ceilings."""
    operator = settings.ceilings
    return (Ceiling("operator", operator.max_thinking_tokens, operator.tier),)


def uses_router(request: BudgetRequest, settings: Settings) -> bool:
    """Return whether the router chooses the tier.

    It does if the request selects it and sets no effort. If it is the default, it also does if
    the request sets no budget fields, or only enables thinking.
    """
    if request.effort is not None or _disables_thinking(request):
        return False
    if request.tier is not None:
        return request.tier.value == AUTO
    return request.number is None and settings.default_tier == AUTO


def resolve(
    request: BudgetRequest, settings: Settings, level: str | None, limits: Sequence[Ceiling]
) -> Resolution:
    """Return the budget of a request.

    In order of precedence, it comes from numbers, an effort or a tier, the router, the default.

    Args:
        request: the budget fields of the request.
        settings: the tiers, and the tiers of efforts and levels.
        level: the router's result, one of `router.LEVELS`; required if `uses_router` is true.
        limits: the ceilings, which clamp the budget.

    Raises:
        BadRequest: if fields contradict each other, or the tier does not exist.
        BudgetError: if the budget is invalid.
    """
    tier, source, field = _choose(request, settings, level)
    _check_minimum(request, tier)
    resolution = _apply_tier(request, settings, tier, source, field)
    # Tiers first: a lower tier has its own numbers, which the ceilings must cap too.
    for ceiling in limits:
        resolution = _lower_tier(resolution, ceiling, settings)
    for ceiling in limits:
        resolution = _cap_numbers(resolution, ceiling, settings)
    return resolution


def _apply_tier(
    request: BudgetRequest, settings: Settings, tier: Tier | None, source: Source, field: str | None
) -> Resolution:
    default = settings.budget.to_budget()
    base = default if tier is None else tier.to_budget(default)
    budget = _override(base, request)
    return Resolution(budget, budget, tier, source, field, request)


def _disables_thinking(request: BudgetRequest) -> bool:
    """Return whether the request itself disables thinking."""
    is_off = request.enabled is not None and not request.enabled.value
    return is_off or (request.maximum is not None and request.maximum.value == 0)


def _choose(
    request: BudgetRequest, settings: Settings, level: str | None
) -> tuple[Tier | None, Source, str | None]:
    """Return the tier, its source, and the field that decided it."""
    named = _named_tier(request, settings)
    if named is not None:
        return named
    if uses_router(request, settings):
        if level is None:
            raise ValueError("level is required: the router chooses the tier")
        field = None if request.tier is None else request.tier.field
        return _routed_tier(request, settings, level), Source.ROUTER, field
    decisive = request.number or request.enabled
    if decisive is not None:
        return None, Source.EXPLICIT, decisive.field
    return settings.tier(settings.default_tier), Source.DEFAULT, None


def _named_tier(request: BudgetRequest, settings: Settings) -> tuple[Tier, Source, str] | None:
    """Return the tier that the request selects by its name or by an effort."""
    tier, effort = request.tier, request.effort
    if tier is not None and tier.value == AUTO:
        tier = None
    by_tier = None if tier is None else _find_tier(tier, tier.value, settings)
    by_effort = None if effort is None else settings.tier(settings.efforts.tier_of(effort.value))
    if tier is not None and effort is not None and by_tier != by_effort:
        raise contradiction(tier, effort)
    if tier is not None and by_tier is not None:
        _check_switch(request, by_tier, tier)
        return by_tier, Source.EXPLICIT, tier.field
    if effort is not None and by_effort is not None:
        _check_switch(request, by_effort, effort)
        return by_effort, Source.EFFORT, effort.field
    return None


def _find_tier(field_value: FieldValue[str], name: str, settings: Settings) -> Tier:
    tier = settings.tier(name)
    if tier is None:
        field, names = field_value.field, ", ".join([AUTO, *(tier.name for tier in settings.tiers)])
        raise BadRequest(f"'{field}' must be one of {names}, not '{name[:64]}'", param=field)
    return tier


def _check_switch(request: BudgetRequest, tier: Tier, named_by: FieldValue[object]) -> None:
    """Reject a request that enables or disables thinking in contradiction to its tier."""
    if request.enabled is not None and request.enabled.value is not tier.thinks:
        raise contradiction(named_by, request.enabled)


def _routed_tier(request: BudgetRequest, settings: Settings, level: str) -> Tier:
    """Return the tier of a level, or the next higher one that allows what the request demands."""
    has_continuations = request.continuations is not None and request.continuations.value > 0
    minimum = 1 if request.enabled is not None or has_continuations else 0
    if request.minimum is not None:
        minimum = max(minimum, request.minimum.value)
    chosen = settings.tiers.index(settings.tier(settings.router.levels.tier_of(level)))
    for tier in settings.tiers[chosen:]:
        if tier.cap >= minimum:
            return tier
    return settings.tiers[-1]


def _check_minimum(request: BudgetRequest, tier: Tier | None) -> None:
    """Reject a minimum that exceeds the maximum of the request's tier."""
    named_by = request.tier or request.effort
    if tier is None or request.minimum is None or request.maximum is not None or named_by is None:
        return
    if request.minimum.value > tier.cap:
        raise contradiction(request.minimum, named_by)


def _override(base: ThinkingBudget, request: BudgetRequest) -> ThinkingBudget:
    """Return the base with the request's fields applied."""
    cap, minimum, options = _cap(base, request), request.minimum, request.options
    texts = options.continuation_text
    return replace(
        base,
        min_tokens=_capped_at(cap, base.min_tokens) if minimum is None else minimum.value,
        max_tokens=cap,
        continuations=_continuations(base, request, cap),
        continuation_texts=base.continuation_texts if texts is None else tuple(texts),
        wrap_up_text=coalesce(base.wrap_up_text, options.wrap_up_text),
        on_loop=coalesce(base.on_loop, options.on_loop),
        landing=coalesce(base.landing, options.landing),
        opens=request.enabled is not None and request.enabled.value,
    )


def _cap(base: ThinkingBudget, request: BudgetRequest) -> int | None:
    if _disables_thinking(request):
        return 0
    if request.maximum is not None:
        return None if request.maximum.value == -1 else request.maximum.value
    if request.enabled is not None and base.disabled:
        return None
    return base.max_tokens


def _continuations(base: ThinkingBudget, request: BudgetRequest, cap: int | None) -> int:
    if request.continuations is not None:
        return request.continuations.value
    return 0 if cap == 0 else base.continuations


def _lower_tier(resolution: Resolution, ceiling: Ceiling, settings: Settings) -> Resolution:
    """Return the resolution with the ceiling's tier, if its own is higher."""
    tier, highest = resolution.tier, _highest(ceiling, settings)
    if tier is None or highest is None or _rank(tier, settings) <= _rank(highest, settings):
        return resolution
    request = resolution.request
    if request.minimum is not None:
        minimum = min(request.minimum.value, highest.cap)
        request = replace(request, minimum=FieldValue(request.minimum.field, int(minimum)))
    if not highest.thinks:
        request = replace(request, continuations=None)
    budget = _apply_tier(request, settings, highest, resolution.source, resolution.field).budget
    return resolution.clamped(ceiling.by, budget, highest)


def _highest(ceiling: Ceiling, settings: Settings) -> Tier | None:
    return None if ceiling.tier is None else settings.tier(ceiling.tier)


def _rank(tier: Tier, settings: Settings) -> int:
    return settings.tiers.index(tier)


def _cap_numbers(resolution: Resolution, ceiling: Ceiling, settings: Settings) -> Resolution:
    """Return the resolution clamped to the ceiling's numbers."""
    budget, highest = resolution.budget, _highest(ceiling, settings)
    tier_cap = None if highest is None else highest.to_cap()
    caps = (budget.max_tokens, ceiling.max_thinking_tokens, tier_cap)
    maximum = min((cap for cap in caps if cap is not None), default=None)
    reduced = _with_bounds(budget, _capped_at(maximum, budget.min_tokens), maximum)
    return resolution.clamped(ceiling.by, reduced, resolution.tier)


def _with_bounds(budget: ThinkingBudget, minimum: int, maximum: int | None) -> ThinkingBudget:
    continuations = 0 if maximum == 0 else budget.continuations
    return replace(budget, min_tokens=minimum, max_tokens=maximum, continuations=continuations)


def _capped_at(cap: int | None, number: int) -> int:
    return number if cap is None else min(cap, number)


def _union(names: tuple[str, ...], *others: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*names, *others)))
