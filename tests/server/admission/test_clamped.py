"""Whether a budget is reported as clamped, and by what."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proctor.budget import BudgetError
from proctor.router import LEVELS
from proctor.server.admission.controller import AdmissionController
from proctor.server.admission.routing import Router
from proctor.server.auth.api_key import Key
from proctor.server.config.budgets import RouterSettings
from proctor.server.config.settings import Settings
from proctor.server.engines.fake import FakeEngine
from proctor.server.errors import ApiError
from proctor.server.schemas.generation import ChatRequest
from proctor.server.turns.history import RecordVerifier
from proctor.server.turns.secret_source import FixedSecrets
from tests.server.accounting.ledger.records import read_records
from tests.server.auth.keys import bearer, configured_key, make_key
from tests.server.harness import CHAT, body, client, parse_events, settings

PRICES = {"prompt": 0, "thinking": 1000, "answer": 1000}
"""A thousandth of a dollar for each token."""
NAMES = ("none", "low", "mid", "high", "max")
TIERS: list[dict[str, Any]] = [
    {"name": "none", "max_tokens": 0},
    {"name": "low", "max_tokens": 20},
    {"name": "mid", "min_tokens": 12, "max_tokens": 30, "continuations": 2},
    {"name": "high", "min_tokens": 10, "max_tokens": 50},
    {"name": "max", "min_tokens": 25, "max_tokens": -1},
]
OTHER_NAMES: dict[str, Any] = {
    "efforts": dict.fromkeys(("minimal", "medium", "xhigh"), "mid"),
    "router": {"levels": dict(zip(LEVELS, NAMES, strict=False))},
}
ROUTER = Router.load(RouterSettings())
VERIFIER = RecordVerifier(FixedSecrets([b"a secret"]))
BY_TOOLS = [
    {"role": "assistant", "content": "Let me see."},
    {"role": "tool", "tool_call_id": "1", "content": "12"},
]
HUGE = 10**6


@dataclass(frozen=True)
class Limits:
    """Everything that can clamp a budget.

    Attributes:
        operator: the operator's ceilings.
        key: the ceilings of the key.
        turn: thinking tokens of earlier messages of the turn.
        room: `max_tokens`; None leaves the context's.
        price: `max_price` of every tier, in thousandths of a dollar.
    """

    operator: dict[str, Any]
    key: dict[str, Any]
    turn: int
    room: int | None
    price: int | None

    def only(self, names: Collection[str]) -> "Limits":
        """Return a copy with only the limits of these names."""
        none = Limits({}, {}, 0, None, None)
        return replace(none, **{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Granted:
    """The budget that was granted to a request.

    Attributes:
        tier: the name of its tier.
        minimum: the minimum of thinking tokens.
        maximum: the maximum of thinking tokens; None if unlimited.
        continuations: the number of continuations.
        clamped: as in the response.
        clamped_by: as in the dry run and the ledger.
    """

    tier: str
    minimum: int
    maximum: int | None
    continuations: int
    clamped: bool
    clamped_by: tuple[str, ...]


numbers = st.integers(0, 60)
caps = st.fixed_dictionaries(
    {}, optional={"max_thinking_tokens": numbers, "tier": st.sampled_from(NAMES)}
)
limits = st.builds(
    Limits,
    caps,
    caps,
    turn=st.just(0) | numbers,
    room=st.none() | st.integers(20, 120),
    price=st.none() | st.integers(20, 120),
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "budget_tier": st.sampled_from(NAMES),
        "max_thinking_tokens": st.integers(-1, 60),
        "min_thinking_tokens": numbers,
        "enable_thinking": st.booleans(),
        "thinking": st.fixed_dictionaries({"continuations": st.integers(0, 3)}),
    },
)
defaults = st.fixed_dictionaries(
    {},
    optional={
        "default_tier": st.sampled_from(NAMES),
        "budget": st.just({"min_tokens": 15}) | st.just({"min_tokens": 5, "max_tokens": 40}),
    },
)


def grant(fields: dict[str, Any], default: dict[str, Any], bounds: Limits) -> Granted:
    """Return the budget that a request is granted."""
    tiers = TIERS
    if bounds.price is not None:
        price = f"{bounds.price * 1e-3:.3f}"
        tiers = [{**tier, "max_price": price} for tier in tiers]
    server_settings = settings(
        tiers=tiers, prices=PRICES, ceilings=bounds.operator, **OTHER_NAMES, **default
    )
    key, _ = make_key(**bounds.key)
    request = body(**fields, messages=_messages(bounds.turn))
    if bounds.room is not None:
        request["max_tokens"] = bounds.room
    return asyncio.run(_admit(request, server_settings, key))


async def _admit(request: dict[str, Any], server_settings: Settings, key: Key) -> Granted:
    controller = AdmissionController(server_settings, ROUTER, VERIFIER)
    admission = await controller.admit(
        ChatRequest.model_validate(request), FakeEngine(context_length=HUGE), "x", key
    )
    enforced = admission.enforced
    return Granted(
        admission.resolution.label,
        enforced.minimum,
        admission.max_thinking_tokens(0),
        enforced.continuations,
        admission.clamped[0],
        admission.clamped_by,
    )


def _messages(spent: int) -> list[dict[str, Any]]:
    before, after = BY_TOOLS
    thought = {"reasoning_content": "x" * spent} if spent else {}
    return [{"role": "user", "content": "hi"}, {**before, **thought}, after]


def figures(granted: Granted, requested: Granted, fields: dict[str, Any]) -> tuple[object, ...]:
    """Return what was granted of the request; an unlimited maximum is left out if not requested."""
    capped = requested.maximum is not None or "max_thinking_tokens" in fields
    return (
        granted.tier,
        granted.minimum,
        granted.maximum if capped else None,
        granted.continuations,
        "enable_thinking" in fields and granted.maximum == 0,
    )


@given(fields=requests, default=defaults, bounds=limits)
def test_clamped_is_reported_exactly_when_less_is_granted_than_requested(
    fields: dict[str, Any], default: dict[str, Any], bounds: Limits
) -> None:
    try:
        requested = grant(fields, default, bounds.only(()))
        granted = grant(fields, default, bounds)
    except (ApiError, BudgetError):
        assume(False)
    less = figures(granted, requested, fields) != figures(requested, requested, fields)
    assert (granted.clamped, bool(granted.clamped_by)) == (less, less)
    assert not requested.clamped
    alone = grant(fields, default, bounds.only(granted.clamped_by))
    assert figures(alone, requested, fields) == figures(granted, requested, fields)
    assert alone.clamped_by == granted.clamped_by


@pytest.mark.parametrize(
    ("fields", "overrides", "limits", "minimum", "maximum", "by"),
    [
        ({"min_thinking_tokens": 9}, {}, {"max_thinking_tokens": 5}, 5, 5, "key"),
        ({"budget_tier": "high"}, {}, {"max_thinking_tokens": 5}, 5, 5, "key"),
        ({"budget_tier": "max"}, {}, {"tier": "low"}, 0, 20, "key"),
        ({"min_thinking_tokens": 4}, {}, {"max_thinking_tokens": 5}, 4, 5, ""),
        (
            {"budget_tier": "high"},
            {"ceilings": {"max_thinking_tokens": 15}},
            {"tier": "low"},
            0,
            15,
            "key,operator",
        ),
        ({"budget_tier": "high", "max_tokens": 21}, {}, {}, 4, 4, "room"),
        (
            {"budget_tier": "high", "max_tokens": 30},
            {"tiers": [{**tier, "max_price": "0.021"} for tier in TIERS], "prices": PRICES},
            {},
            4,
            4,
            "room,price",
        ),
    ],
)
async def test_responses_dry_run_and_ledger_agree_on_the_clamp(
    tmp_path: Path,
    fields: dict[str, Any],
    overrides: dict[str, Any],
    limits: dict[str, Any],
    minimum: int,
    maximum: int,
    by: str,
) -> None:
    key, token = configured_key(**limits)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    server_settings = {
        "tiers": TIERS,
        **OTHER_NAMES,
        **overrides,
        "keys": [key],
        "ledger": {"url": url},
    }
    async with client(FakeEngine(), **server_settings) as http:
        http.headers.update(bearer(token))
        whole = await http.post(CHAT, json=body(**fields))
        streamed = await http.post(CHAT, json=body(**fields, stream=True))
        route = (await http.post("/v1/route", json=body(**fields))).json()
    rows = await read_records(url)

    choices = [event.choice for event in parse_events(streamed.text) if event.data != "[DONE]"]
    streamed_thinking = [choice["thinking"] for choice in choices if "thinking" in choice]
    for thinking in (whole.json()["choices"][0]["thinking"], *streamed_thinking):
        assert thinking["clamped"] is bool(by)
        assert (thinking["min_tokens"], thinking["max_tokens"]) == (minimum, maximum)
    budget = route["budget"]
    assert (budget["min_tokens"], budget["max_tokens"]) == (minimum, maximum)
    assert ",".join(route["clamped_by"]) == by
    for row in rows:
        assert (row.min_tokens, row.max_tokens, row.clamped_by) == (minimum, maximum, by)
    assert (len(streamed_thinking), len(rows)) == (1, 2)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"prompt": "One and one is", "max_tokens": 8}),
        (
            CHAT,
            {
                "messages": [
                    {"role": "user", "content": "What is one and one?"},
                    {"role": "assistant", "content": "One and one is"},
                ],
                "continue_final_message": True,
                "add_generation_prompt": False,
            },
        ),
    ],
)
async def test_a_prompt_without_thinking_drops_the_default_minimum(
    path: str, fields: dict[str, Any]
) -> None:
    clamped = []
    for least in (0, 5):
        async with client(FakeEngine(), budget={"min_tokens": least}) as http:
            answer = (await http.post(path, json={"model": "fake", **fields})).json()
        thinking = answer["choices"][0]["thinking"]
        assert thinking["min_tokens"] == 0
        clamped.append(thinking["clamped"])

    assert clamped == [False, True]


async def test_a_dry_run_reports_the_remaining_continuations() -> None:
    fields = body(thinking={"continuations": 2}, max_tokens=17)
    async with client(FakeEngine()) as http:
        shown = (await http.post("/v1/route", json=fields)).json()

    assert (shown["budget"]["continuations"], shown["clamped_by"]) == (0, ["room"])
