"""Costs, reservations and sessions of several models."""

from decimal import Decimal
from typing import Any

import httpx
import pytest

from proctor.server.pricing import MILLION
from tests.server.accounting.ledger.records import read_records
from tests.server.api.test_errors import assert_error
from tests.server.auth.keys import bearer, configured_key
from tests.server.harness import CHAT, body
from tests.server.models.two_models import (
    PRICES,
    SMALL_PRICES,
    large_engine,
    small_engine,
    two_models,
)

PRICED: dict[str, Any] = {"model": {"prices": SMALL_PRICES}, "prices": PRICES}
SMALL_ONES = ({"model": "small"}, {"model": "tiny"}, {"budget_tier": "low"})
"""What the small model serves."""


def cost_of(answer: dict[str, Any], prices: dict[str, str]) -> float:
    """Return what an answer costs by the prices. Tokens are bytes, and its text is the answer."""
    usage = answer["usage"]
    answered = len(answer["choices"][0]["message"]["content"])
    total = usage["prompt_tokens"] * Decimal(prices["prompt"])
    total += (usage["completion_tokens"] - answered) * Decimal(prices["thinking"])
    total += answered * Decimal(prices["answer"])
    return float(total / MILLION)


async def test_costs_are_those_of_the_model_that_serves(url: str) -> None:
    async with two_models(**PRICED, ledger={"url": url}) as http:
        large = [(await http.post(CHAT, json=body(budget_tier="high"))).json()]
        small = [(await http.post(CHAT, json=body(**fields))).json() for fields in SMALL_ONES]
    records = await read_records(url)

    for answers, prices in ((large, PRICES), (small, SMALL_PRICES)):
        for answer in answers:
            assert answer["cost"]["total"] == pytest.approx(cost_of(answer, prices))
    assert sorted((record.model, record.tier) for record in records) == [
        ("fake", "high"),
        ("small", "custom"),
        ("small", "custom"),
        ("small", "low"),
    ]
    charged = {record.id: record.cost for record in records}
    for answer in (*large, *small):
        cost = charged[answer["id"]]
        assert cost is not None
        assert float(cost.total) == pytest.approx(answer["cost"]["total"])


async def test_a_model_without_prices_costs_nothing_that_is_known(url: str) -> None:
    async with two_models(prices=PRICES, ledger={"url": url}) as http:
        answer = await http.post(CHAT, json=body(model="small"))
        route = (await http.post("/v1/route", json=body(model="small"))).json()
    (record,) = await read_records(url)

    assert "cost" not in answer.json() or answer.json()["cost"] is None
    assert "x-cost" not in answer.headers
    assert route["cost"] is None
    assert (record.model, record.cost) == ("small", None)


async def test_the_worst_case_is_that_of_the_model_that_serves(url: str) -> None:
    """A key that can pay for the small model only."""
    key, token = configured_key("team", per_day="0.002")
    async with two_models(**PRICED, keys=[key], ledger={"url": url}) as http:

        async def post(**fields: Any) -> httpx.Response:
            return await http.post(CHAT, json=body(**fields), headers=bearer(token))

        large = await post(budget_tier="high")
        small = [await post(**fields) for fields in SMALL_ONES]

    assert large.status_code == 429
    assert [answer.status_code for answer in small] == [200] * 3


async def test_a_key_with_a_spending_limit_needs_prices(url: str) -> None:
    key, token = configured_key("team", per_day="1", models=["fake"])
    async with two_models(prices=PRICES, keys=[key], ledger={"url": url}) as http:
        answer = await http.post(CHAT, json=body(budget_tier="low"), headers=bearer(token))
        large = await http.post(CHAT, json=body(budget_tier="high"), headers=bearer(token))

    assert_error(answer, 403, "model")
    assert large.status_code == 200


async def test_a_sessions_purse_is_spent_at_the_prices_of_each_model(url: str) -> None:
    limits = {"x-session-id": "one", "x-session-max-cost": "0.0004"}
    large_one, small_one = large_engine(), small_engine()
    async with two_models(large_one, small_one, **PRICED, ledger={"url": url}) as http:
        small = await http.post(CHAT, json=body(budget_tier="low"), headers=limits)
        large = await http.post(CHAT, json=body(budget_tier="high"), headers=limits)
        left = (await http.get("/v1/sessions/one")).json()

    assert [small.status_code, large.status_code] == [200, 200], large.text
    most = [engine.jobs[0].sampling.max_tokens for engine in (small_one, large_one)]
    assert most[0] > 9 * most[1]
    spent = small.json()["cost"]["total"] + large.json()["cost"]["total"]
    assert left["used"]["cost"] == pytest.approx(spent)


async def test_a_session_with_a_limit_of_cost_needs_prices(url: str) -> None:
    limits = {"x-session-id": "one", "x-session-max-cost": "1"}
    async with two_models(prices=PRICES, ledger={"url": url}) as http:
        refused = await http.post(CHAT, json=body(budget_tier="low"), headers=limits)
        named = await http.post(CHAT, json=body(model="tiny"), headers=limits)
        large = await http.post(CHAT, json=body(budget_tier="high"), headers=limits)

    for answer in (refused, named):
        assert "no prices" in assert_error(answer, 503, None)["message"]
    assert large.status_code == 200


async def test_a_sessions_thinking_is_counted_over_all_models(url: str) -> None:
    limits = {"x-session-id": "one", "x-session-max-thinking-tokens": "15"}
    async with two_models(ledger={"url": url}) as http:
        answers = [
            (await http.post(CHAT, json=body(budget_tier=tier), headers=limits)).json()
            for tier in ("low", "high")
        ]

    tokens = [answer["choices"][0]["thinking"]["tokens"] for answer in answers]
    assert [answer["model"] for answer in answers] == ["small", "fake"]
    assert tokens == [11, 4]


async def test_a_repeated_request_gets_the_answer_of_the_same_model(url: str) -> None:
    headers = {"idempotency-key": "mine"}
    small = small_engine()
    async with two_models(small=small, ledger={"url": url}) as http:
        first = await http.post(CHAT, json=body(budget_tier="low"), headers=headers)
        again = await http.post(CHAT, json=body(budget_tier="low"), headers=headers)

    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    assert again.json()["model"] == "small"
    assert len(small.jobs) == 1


async def test_a_tiers_maximum_price_is_that_of_its_model() -> None:
    cheap = {"name": "low", "max_tokens": 20, "model": "small", "max_price": "0.0001"}
    tiers: list[dict[str, Any]] = [
        {"name": "none", "max_tokens": 0},
        cheap,
        *({"name": name, "max_tokens": 30} for name in ("medium", "high", "max")),
    ]
    capped = [{"name": tier["name"], "max_tokens": 9} for tier in tiers]
    own = {"prices": SMALL_PRICES, "tiers": capped}
    small = small_engine()
    async with two_models(small=small, model=own, prices=PRICES, tiers=tiers) as http:
        answer = await http.post(CHAT, json=body(budget_tier="low"))

    prompt = answer.json()["usage"]["prompt_tokens"]
    afforded = (Decimal("0.0001") * MILLION - prompt * Decimal("0.1")) // Decimal("0.4")
    assert small.jobs[0].sampling.max_tokens == afforded
