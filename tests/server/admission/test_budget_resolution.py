"""Resolution of the budget fields, in all their spellings, to a budget."""

from itertools import combinations, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.budget import BudgetError, OnLoop
from proctor.router import LEVELS
from proctor.server.admission.budget_request import read_budget_request
from proctor.server.admission.budget_resolution import Ceiling, resolve, uses_router
from proctor.server.config.budgets import AUTO, CUSTOM
from proctor.server.config.settings import Settings
from proctor.server.errors import ApiError
from proctor.server.generation.resolution import Resolution
from proctor.server.schemas.generation import ChatRequest
from proctor.server.schemas.responses import Source

MESSAGES = [{"role": "user", "content": "hi"}]

MAXIMA: dict[str, Any] = {
    "max_thinking_tokens": lambda n: {"max_thinking_tokens": n},
    "thinking.budget_tokens": lambda n: {"thinking": {"budget_tokens": n}},
    "thinking_token_budget": lambda n: {"thinking_token_budget": n},
    "thinking_budget": lambda n: {"thinking_budget": n},
    "nvext.max_thinking_tokens": lambda n: {"nvext": {"max_thinking_tokens": n}},
    "reasoning_budget_tokens": lambda n: {"reasoning_budget_tokens": n},
    "thinking_budget_tokens": lambda n: {"thinking_budget_tokens": n},
    "reasoning_max_tokens": lambda n: {"reasoning_max_tokens": n},
    "reasoning.max_tokens": lambda n: {"reasoning": {"max_tokens": n}},
}
MINIMA: dict[str, Any] = {
    "min_thinking_tokens": lambda n: {"min_thinking_tokens": n},
    "thinking.min_tokens": lambda n: {"thinking": {"min_tokens": n}},
}
EFFORTS: dict[str, Any] = {
    "reasoning_effort": lambda effort: {"reasoning_effort": effort},
    "reasoning.effort": lambda effort: {"reasoning": {"effort": effort}},
    "think": lambda effort: {"think": effort},
}
SWITCHES: dict[str, Any] = {
    "thinking.type": lambda on: {"thinking": {"type": "enabled" if on else "disabled"}},
    "enable_thinking": lambda on: {"enable_thinking": on},
    "chat_template_kwargs.enable_thinking": lambda on: {
        "chat_template_kwargs": {"enable_thinking": on}
    },
    "chat_template_kwargs.thinking": lambda on: {"chat_template_kwargs": {"thinking": on}},
    "reasoning.enabled": lambda on: {"reasoning": {"enabled": on}},
    "think": lambda on: {"think": on},
}
TIER = {"budget_tier": lambda name: {"budget_tier": name}}
EFFORT_TIERS = {
    "none": "none",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "max": "max",
}


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """Merge fields into one request; objects with the same name are merged."""
    whole: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            if isinstance(value, dict):
                whole[name] = {**whole.get(name, {}), **value}
            else:
                whole[name] = value
    return whole


def resolved(
    *parts: dict[str, Any],
    level: str = "medium",
    ceilings: tuple[Ceiling, ...] = (),
    **settings: Any,
) -> Resolution:
    request = ChatRequest.model_validate({"model": "m", "messages": MESSAGES, **merged(*parts)})
    requested, server_settings = read_budget_request(request), Settings(**settings)
    return resolve(
        requested,
        server_settings,
        level if uses_router(requested, server_settings) else None,
        ceilings,
    )


def contradictions() -> list[tuple[str, str, dict[str, Any]]]:
    """Return all pairs of fields that contradict each other, with a request that has both."""
    rows = []

    def add(ones: dict[str, Any], one: object, others: dict[str, Any], other: object) -> None:
        for (first, spell), (second, spell_other) in product(ones.items(), others.items()):
            if first != second:
                rows.append((first, second, merged(spell(one), spell_other(other))))

    for family, one, other in [
        (MAXIMA, 5, 6),
        (MINIMA, 5, 6),
        (EFFORTS, "low", "high"),
        (SWITCHES, True, False),
    ]:
        for first, second in combinations(family, 2):
            rows.append((first, second, merged(family[first](one), family[second](other))))
    add(SWITCHES, False, MAXIMA, 5)
    add(SWITCHES, False, MAXIMA, -1)
    add(SWITCHES, True, MAXIMA, 0)
    add(SWITCHES, False, MINIMA, 5)
    add(
        SWITCHES, False, {"thinking.continuations": lambda n: {"thinking": {"continuations": n}}}, 1
    )
    add(SWITCHES, False, EFFORTS, "low")
    add(SWITCHES, True, EFFORTS, "none")
    add(SWITCHES, False, TIER, "low")
    add(SWITCHES, True, TIER, "none")
    add(TIER, "low", EFFORTS, "high")
    add(MINIMA, 4000, TIER, "medium")
    add(MINIMA, 4000, EFFORTS, "medium")
    return rows


@pytest.mark.parametrize(("first", "second", "fields"), contradictions())
def test_contradicting_fields_are_both_named(
    first: str, second: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(ApiError) as refused:
        resolved(fields)
    assert refused.value.status == 400
    assert f"'{first}'" in str(refused.value)
    assert f"'{second}'" in str(refused.value)
    assert refused.value.param in (first, second)


@pytest.mark.parametrize("field", MAXIMA)
@pytest.mark.parametrize("number", [0, 7, -1])
def test_a_maximum_by_any_name(field: str, number: int) -> None:
    found = resolved(MAXIMA[field](number))
    assert found.budget.max_tokens == (None if number == -1 else number)
    assert (found.source, found.field, found.tier) == (Source.EXPLICIT, field, None)
    assert found.label == CUSTOM


@pytest.mark.parametrize("field", MINIMA)
def test_a_minimum_by_any_name(field: str) -> None:
    found = resolved(MINIMA[field](9))
    assert (found.budget.min_tokens, found.budget.max_tokens) == (9, None)
    assert found.minimum_requested
    assert found.field == field


@pytest.mark.parametrize("field", EFFORTS)
@pytest.mark.parametrize(("effort", "tier"), EFFORT_TIERS.items())
def test_an_effort_by_any_name(field: str, effort: str, tier: str) -> None:
    found = resolved(EFFORTS[field](effort))
    assert (found.label, found.source, found.field) == (tier, Source.EFFORT, field)


@pytest.mark.parametrize("field", SWITCHES)
def test_a_switch_by_any_name(field: str) -> None:
    off = resolved(SWITCHES[field](False), level="high")
    assert (off.budget.max_tokens, off.source, off.field) == (0, Source.EXPLICIT, field)
    on = resolved(SWITCHES[field](True), level="none")
    assert (on.label, on.source) == ("low", Source.ROUTER)
    without = resolved(SWITCHES[field](True), default_tier=CUSTOM, budget={"max_tokens": 0})
    assert without.budget.max_tokens is None


@pytest.mark.parametrize("fields", [{}, {"budget_tier": AUTO}, {"thinking": {"type": AUTO}}])
@pytest.mark.parametrize("level", LEVELS)
def test_the_router_decides_where_nothing_else_does(fields: dict[str, Any], level: str) -> None:
    found = resolved(fields, level=level)
    assert (found.label, found.source) == (level, Source.ROUTER)


def test_spellings_with_the_same_value_are_accepted() -> None:
    fields = merged(*(spell(64) for spell in MAXIMA.values()))
    assert resolved(fields).budget.max_tokens == 64
    assert resolved({"budget_tier": "low", "reasoning_effort": "minimal"}).label == "low"
    off = [spell(False) for spell in SWITCHES.values()]
    assert resolved(*off, {"budget_tier": "none"}).budget.disabled


@pytest.mark.parametrize(
    ("fields", "minimum", "maximum", "label", "source"),
    [
        ({"budget_tier": "high", "max_thinking_tokens": 100}, 100, 100, "high", "explicit"),
        ({"reasoning_effort": "low", "max_thinking_tokens": 4096}, 0, 4096, "low", "effort"),
        ({"budget_tier": "low", "max_thinking_tokens": 0}, 0, 0, "low", "explicit"),
        ({"budget_tier": "auto", "reasoning_effort": "high"}, 256, 8192, "high", "effort"),
        ({"thinking": {"type": "auto"}, "budget_tier": "low"}, 0, 512, "low", "explicit"),
        ({"budget_tier": "auto", "max_thinking_tokens": 70}, 0, 70, "medium", "router"),
        ({"budget_tier": "auto", "min_thinking_tokens": 3000}, 3000, 8192, "high", "router"),
        ({"budget_tier": "auto", "max_thinking_tokens": 0}, 0, 0, "custom", "explicit"),
        ({"budget_tier": "medium", "min_thinking_tokens": 7}, 7, 2048, "medium", "explicit"),
        ({"reasoning_effort": "none", "max_thinking_tokens": 10}, 0, 10, "custom", "explicit"),
        ({"reasoning_effort": "none", "max_thinking_tokens": -1}, 0, None, "custom", "explicit"),
        ({"reasoning_effort": "none", "max_thinking_tokens": 0}, 0, 0, "none", "effort"),
        ({"budget_tier": "none", "thinking": {"budget_tokens": 9}}, 0, 9, "custom", "explicit"),
    ],
)
def test_numbers_override_tiers_and_tiers_override_the_router(
    fields: dict[str, Any], minimum: int, maximum: int | None, label: str, source: str
) -> None:
    found = resolved(fields)
    assert (found.budget.min_tokens, found.budget.max_tokens) == (minimum, maximum)
    assert (found.label, found.source) == (label, source)


def test_a_minimum_above_every_tier_is_refused() -> None:
    with pytest.raises(ApiError, match="min_thinking_tokens"):
        resolved({"budget_tier": "auto", "min_thinking_tokens": 10**6})


def test_a_default_tier_can_be_set() -> None:
    assert resolved(default_tier="low").source is Source.DEFAULT
    assert resolved(default_tier="low").label == "low"
    assert resolved(default_tier=CUSTOM, budget={"max_tokens": 9}).budget.max_tokens == 9
    assert resolved({"budget_tier": AUTO}, default_tier="low").source is Source.ROUTER


def test_thinking_options_override_those_of_the_tier() -> None:
    tiers = [{"name": "only", "max_tokens": 99, "on_loop": "off", "continuation_text": "Hm"}]
    settings: dict[str, Any] = {
        "tiers": tiers,
        "efforts": dict.fromkeys(EFFORT_TIERS, "only"),
        "router": {"levels": dict.fromkeys(LEVELS, "only")},
        "budget": {"wrap_up_text": "So:"},
    }
    found = resolved(**settings).budget
    assert (found.on_loop, found.wrap_up_text) == (OnLoop.OFF, "So:")
    assert found.continuation_texts == ("Hm",)
    fields = {"thinking": {"on_loop": "nudge", "continuation_text": ["A", "B"]}}
    found = resolved(fields, **settings).budget
    assert (found.on_loop, found.continuation_texts) == (OnLoop.NUDGE, ("A", "B"))


@pytest.mark.parametrize(
    ("fields", "ceiling", "maximum", "label", "clamped_by"),
    [
        ({"max_thinking_tokens": 90}, {"max_thinking_tokens": 50}, 50, "custom", ("key",)),
        ({"max_thinking_tokens": -1}, {"max_thinking_tokens": 50}, 50, "custom", ("key",)),
        ({"max_thinking_tokens": 40}, {"max_thinking_tokens": 50}, 40, "custom", ()),
        ({"min_thinking_tokens": 40}, {"max_thinking_tokens": 50}, 50, "custom", ()),
        ({"min_thinking_tokens": 60}, {"max_thinking_tokens": 50}, 50, "custom", ("key",)),
        ({"thinking": {"continuations": 2}}, {"max_thinking_tokens": 0}, 0, "custom", ("key",)),
        ({"thinking": {"type": "enabled"}}, {"max_thinking_tokens": 0}, 0, "medium", ("key",)),
        ({"budget_tier": "high"}, {"tier": "low"}, 512, "low", ("key",)),
        ({"budget_tier": "high"}, {"max_thinking_tokens": 50}, 50, "high", ("key",)),
        ({"max_thinking_tokens": 9000}, {"tier": "low"}, 512, "custom", ("key",)),
        ({"budget_tier": "low"}, {"tier": "high"}, 512, "low", ()),
        ({"budget_tier": "low"}, {"max_thinking_tokens": 0}, 0, "low", ("key",)),
    ],
)
def test_ceilings_clamp_and_are_reported(
    fields: dict[str, Any],
    ceiling: dict[str, Any],
    maximum: int,
    label: str,
    clamped_by: tuple[str, ...],
) -> None:
    found = resolved(fields, ceilings=(Ceiling("key", **ceiling),))
    assert (found.budget.max_tokens, found.label, found.clamped_by) == (maximum, label, clamped_by)


def test_a_ceiling_tier_replaces_a_higher_tier_in_full() -> None:
    fields = {"budget_tier": "max", "min_thinking_tokens": 4000}
    ceiling = (Ceiling("key", tier="low"),)
    assert resolved({"budget_tier": "max"}, ceilings=ceiling).budget.min_tokens == 0
    assert resolved(fields, ceilings=ceiling).budget.min_tokens == 512
    wide = {"budget_tier": "max", "max_thinking_tokens": 9000, "min_thinking_tokens": 400}
    cut = resolved(wide, ceilings=ceiling)
    assert (cut.budget.min_tokens, cut.budget.max_tokens) == (400, 512)
    assert (cut.label, cut.clamped_by) == ("low", ("key",))


@pytest.mark.parametrize(
    ("fields", "level", "label", "raised_by"),
    [
        ({"min_thinking_tokens": 1000}, "low", "medium", "min_thinking_tokens"),
        ({"thinking": {"min_tokens": 1000}}, "none", "medium", "thinking.min_tokens"),
        ({"min_thinking_tokens": 1000}, "high", "high", None),
        ({"thinking": {"continuations": 1}}, "none", "low", "thinking.continuations"),
        ({"enable_thinking": True}, "none", "low", "enable_thinking"),
        ({"enable_thinking": True}, "low", "low", None),
        ({}, "none", "none", None),
    ],
)
def test_what_raises_the_tier_of_the_router_is_named(
    fields: dict[str, Any], level: str, label: str, raised_by: str | None
) -> None:
    found = resolved({"budget_tier": "auto"}, fields, level=level)
    assert (found.label, found.source, found.raised_by) == (label, Source.ROUTER, raised_by)
    assert resolved(fields | {"budget_tier": "max"}).raised_by is None


def test_zero_continuations_do_not_demand_thinking() -> None:
    fields = {"budget_tier": "auto", "thinking": {"continuations": 0}}
    assert resolved(fields, level="none").label == "none"
    fields = {"budget_tier": "auto", "thinking": {"continuations": 1}}
    assert resolved(fields, level="none").label == "low"


def test_a_ceiling_tier_does_not_lift_another_ceiling() -> None:
    above = (Ceiling("operator", 50), Ceiling("key", tier="low"))
    for ordered in (above, above[::-1]):
        found = resolved({"budget_tier": "high"}, ceilings=ordered)
        assert (found.budget.min_tokens, found.budget.max_tokens) == (0, 50)
        assert (found.label, found.clamped_by) == ("low", ("key", "operator"))


def test_a_ceiling_without_thinking_removes_continuations() -> None:
    fields = {"budget_tier": "high", "thinking": {"continuations": 2}}
    found = resolved(fields, ceilings=(Ceiling("key", tier="none"),))
    assert (found.budget.continuations, found.budget.max_tokens) == (0, 0)
    assert found.clamped_by == ("key",)


def test_a_ceiling_on_an_unlimited_budget_is_reported_once_it_has_an_effect() -> None:
    fields = {"thinking": {"continuations": 1}}
    capped = resolved(fields, default_tier="custom", ceilings=(Ceiling("key", 30),))
    assert capped.clamped_by == ()
    assert capped.minus_spent(29).clamped_by == ()
    assert capped.minus_spent(30).clamped_by == ("key", "turn")


def test_every_ceiling_that_clamps_is_reported() -> None:
    above = (Ceiling("operator", 60), Ceiling("key", 50))
    assert resolved({"max_thinking_tokens": 70}, ceilings=above).clamped_by == ("operator", "key")


spellings = st.one_of(
    *(st.integers(-1, 40_000).map(spell) for spell in MAXIMA.values()),
    *(st.integers(0, 40_000).map(spell) for spell in MINIMA.values()),
    *(st.sampled_from([*EFFORT_TIERS]).map(spell) for spell in EFFORTS.values()),
    *(st.booleans().map(spell) for spell in SWITCHES.values()),
    st.sampled_from(["auto", "none", "low", "medium", "high", "max", "?"]).map(TIER["budget_tier"]),
    st.integers(0, 8).map(lambda n: {"thinking": {"continuations": n}}),
)


@given(
    fields=st.lists(spellings, max_size=4),
    level=st.sampled_from(LEVELS),
    ceiling=st.none() | st.integers(0, 40_000),
)
def test_requested_budgets_are_granted_or_refused(
    fields: list[dict[str, Any]], level: str, ceiling: int | None
) -> None:
    try:
        resolution = resolved(*fields, level=level, ceilings=(Ceiling("operator", ceiling),))
    except (ApiError, BudgetError):
        return
    request = ChatRequest.model_validate({"model": "m", "messages": MESSAGES, **merged(*fields)})
    requested, budget = read_budget_request(request), resolution.budget
    maximum = float("inf") if budget.max_tokens is None else budget.max_tokens
    assert budget.min_tokens <= maximum
    assert ceiling is None or maximum <= ceiling
    if requested.maximum is not None and not resolution.clamped_by:
        assert budget.max_tokens == (
            None if requested.maximum.value == -1 else requested.maximum.value
        )
    if requested.minimum is not None and not resolution.clamped_by:
        assert budget.min_tokens == min(requested.minimum.value, maximum)
    if resolution.tier is not None and not resolution.tier.thinks:
        assert budget.disabled
    if requested.enabled is not None and not resolution.clamped_by:
        assert requested.enabled.value is not budget.disabled


def test_enabling_thinking_against_a_ceiling_is_reported_as_clamped() -> None:
    fields = {"thinking": {"type": "enabled"}}
    for maximum, clamped_by in ((0, ("key",)), (50, ())):
        above = (Ceiling("key", max_thinking_tokens=maximum),)
        assert resolved(fields, ceilings=above, default_tier="custom").clamped_by == clamped_by


def test_a_minimum_partly_met_earlier_in_the_turn_is_reported_as_clamped() -> None:
    def left(fields: dict[str, Any], spent: int) -> tuple[int, tuple[str, ...]]:
        found = resolved(fields, default_tier="custom").minus_spent(spent)
        return found.budget.min_tokens, found.clamped_by

    assert left({"min_thinking_tokens": 60}, 0) == (60, ())
    assert left({"min_thinking_tokens": 60}, 20) == (40, ("turn",))
    assert left({}, 20) == (0, ())
