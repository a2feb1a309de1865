"""Resolves a request's budget fields, tiers, the router and ceilings to one thinking budget."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from proctor.budget import ThinkingBudget
from proctor.server.admission.budget_request import BudgetRequest, FieldValue, conflict
from proctor.server.config.budgets import AUTO, Parallel, Tier
from proctor.server.config.section import coalesce
from proctor.server.config.settings import Settings
from proctor.server.config.thinking.early_exit import EarlyExit, Method
from proctor.server.errors import BadRequest
from proctor.server.generation.resolution import RequestedParts, Resolution
from proctor.server.schemas.base import RequestModel
from proctor.server.schemas.responses import Source

Options = TypeVar("Options", bound=BaseModel)


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
    Numbers override those of the tier, which stays that of the budget unless it has no thinking.

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
    if source is Source.ROUTER and level is not None:
        resolution = replace(resolution, raised_by=_raised_by(request, settings, level))
    # Tiers first: a lower tier has its own numbers, which the ceilings must cap too.
    for ceiling in limits:
        resolution = _lower_tier(resolution, request, ceiling, settings)
    for ceiling in limits:
        resolution = _cap_numbers(resolution, ceiling, settings)
    return resolution


def _apply_tier(
    request: BudgetRequest, settings: Settings, tier: Tier | None, source: Source, field: str | None
) -> Resolution:
    default = settings.default_budget(tier).to_budget()
    base = default if tier is None else tier.to_budget(default)
    budget = _override(base, request)
    parts = RequestedParts(
        request.minimum is not None, request.maximum is not None, request.enabled is not None
    )
    defaults = settings.default_budget(tier)
    early_exit, parallel = defaults.early_exit, defaults.parallel
    if tier is not None:
        early_exit = early_exit if tier.early_exit is None else tier.early_exit
        parallel = parallel if tier.parallel is None else tier.parallel
    return Resolution(
        budget,
        budget,
        tier,
        source,
        field,
        parts,
        _early_exit(early_exit, request),
        _parallel(parallel, request),
    )


def _values(options: RequestModel) -> dict[str, Any]:
    """Return the options that are set, without other fields that a request may have."""
    return options.model_dump(include={*type(options).model_fields}, exclude_none=True)


def _early_exit(configured: EarlyExit | None, request: BudgetRequest) -> EarlyExit | None:
    """Return the early exit of a request, or None if it is off.

    Raises:
        BadRequest: if the request's options are invalid.
    """
    options, field = request.options.early_exit, "thinking.early_exit"
    early_exit = _overridden(EarlyExit, configured, options, field)
    return None if early_exit is None or early_exit.method is Method.OFF else early_exit


def _parallel(configured: Parallel | None, request: BudgetRequest) -> Parallel | None:
    """Return the chains of a request, or None if there is only one.

    Raises:
        BadRequest: if the request's options are invalid.
    """
    options, field = request.options.parallel, "thinking.parallel"
    parallel = _overridden(Parallel, configured, options, field)
    return None if parallel is None or parallel.chains == 1 else parallel


def _overridden(
    kind: type[Options], configured: Options | None, options: RequestModel | None, field: str
) -> Options | None:
    """Return options of which the request's override the configured ones, or None without any.

    Args:
        kind: their class.
        configured: those of the tier or the default budget.
        options: those of the request.
        field: the request's field that has them.

    Raises:
        BadRequest: if they are incomplete or invalid.
    """
    values = {} if options is None else _values(options)
    base = {} if configured is None else configured.model_dump()
    if not values and configured is None:
        return None
    try:
        return kind.model_validate(base | values)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, (field, *first["loc"])))
        problem = first["msg"].removeprefix("Value error, ")
        raise BadRequest(f"'{path}' is invalid: {problem}", param=path) from error


def _disables_thinking(request: BudgetRequest) -> bool:
    """Return whether the request itself disables thinking."""
    is_off = request.enabled is not None and not request.enabled.value
    return is_off or (request.maximum is not None and request.maximum.value == 0)


def _choose(
    request: BudgetRequest, settings: Settings, level: str | None
) -> tuple[Tier | None, Source, str | None]:
    """Return the tier, its source, and the field that decided it."""
    named = _named_tier(request, settings)
    if named is not None and not _lifts(request.maximum, named[0]):
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


def _lifts(maximum: FieldValue[int] | None, tier: Tier) -> bool:
    """Return whether a maximum allows thinking in a tier without: then it decides, not the tier.

    The response would otherwise name a tier without thinking beside its thinking tokens.
    """
    return maximum is not None and maximum.value != 0 and not tier.thinks


def _named_tier(request: BudgetRequest, settings: Settings) -> tuple[Tier, Source, str] | None:
    """Return the tier that the request selects by its name or by an effort."""
    tier, effort = request.tier, request.effort
    if tier is not None and tier.value == AUTO:
        tier = None
    by_tier = None if tier is None else _find_tier(tier, tier.value, settings)
    by_effort = None if effort is None else settings.tier(settings.efforts.tier_of(effort.value))
    if tier is not None and effort is not None and by_tier != by_effort:
        raise conflict(tier, effort)
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
        raise conflict(named_by, request.enabled)


def _routed_tier(request: BudgetRequest, settings: Settings, level: str) -> Tier:
    """Return the tier of a level, or the next higher one that allows what the request demands."""
    least = max((demand.value for demand in _demands(request)), default=0)
    chosen = settings.tiers.index(settings.tier(settings.router.levels.tier_of(level)))
    for tier in settings.tiers[chosen:]:
        if tier.cap >= least:
            return tier
    return settings.tiers[-1]


def _raised_by(request: BudgetRequest, settings: Settings, level: str) -> str | None:
    """Return the field that demands more thinking than the tier of a level allows, or None."""
    tier = settings.tier(settings.router.levels.tier_of(level))
    unmet = [each.field for each in _demands(request) if tier is not None and tier.cap < each.value]
    return unmet[0] if unmet else None


def _demands(request: BudgetRequest) -> Iterator[FieldValue[int]]:
    """Yield the thinking tokens that fields of the request demand at least."""
    if request.minimum is not None:
        yield request.minimum
    if request.continuations is not None and request.continuations.value > 0:
        yield FieldValue(request.continuations.field, 1)
    if request.enabled is not None:
        yield FieldValue(request.enabled.field, 1)


def _check_minimum(request: BudgetRequest, tier: Tier | None) -> None:
    """Reject a minimum that exceeds the maximum of the request's tier."""
    named_by = request.tier or request.effort
    if tier is None or request.minimum is None or request.maximum is not None or named_by is None:
        return
    if request.minimum.value > tier.cap:
        raise conflict(request.minimum, named_by)


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


def _lower_tier(
    resolution: Resolution, request: BudgetRequest, ceiling: Ceiling, settings: Settings
) -> Resolution:
    """Return the resolution with the ceiling's tier, if its own is higher."""
    tier, highest = resolution.tier, _highest(ceiling, settings)
    if tier is None or highest is None or _rank(tier, settings) <= _rank(highest, settings):
        return resolution
    if request.minimum is not None:
        minimum = min(request.minimum.value, highest.cap)
        request = replace(request, minimum=FieldValue(request.minimum.field, int(minimum)))
    if not highest.thinks:
        request = replace(request, continuations=None)
    lowered = _apply_tier(request, settings, highest, resolution.source, resolution.field)
    clamped = resolution.clamped(ceiling.by, lowered.budget, highest)
    return replace(clamped, parallel=lowered.parallel)


def _highest(ceiling: Ceiling, settings: Settings) -> Tier | None:
    return None if ceiling.tier is None else settings.tier(ceiling.tier)


def _rank(tier: Tier, settings: Settings) -> int:
    return settings.tiers.index(tier)


def _cap_numbers(resolution: Resolution, ceiling: Ceiling, settings: Settings) -> Resolution:
    """Return the resolution clamped to the ceiling's numbers."""
    highest = _highest(ceiling, settings)
    caps = (ceiling.max_thinking_tokens, None if highest is None else highest.to_cap())
    maximum = min((cap for cap in caps if cap is not None), default=None)
    return resolution if maximum is None else resolution.capped(ceiling.by, maximum)


def _capped_at(cap: int | None, number: int) -> int:
    return number if cap is None else min(cap, number)
