"""Tiers in the gateway, over the fake engine."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.router import Conversation, Costs, Prediction
from proctor.server.admission.routing import Router
from proctor.server.config.budgets import RouterSettings
from proctor.server.config.prices import Prices
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import Settings, load_settings
from proctor.server.engines.factory import check_tiers
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.pricing import Cost, affordable
from tests.server.harness import CHAT, body, client, parse_events

ROUTE = "/v1/route"
PRICES = {"prompt": "1", "thinking": "2", "answer": "4"}
TIERS = [
    {"name": "none", "max_tokens": 0},
    {"name": "low", "max_tokens": 4},
    {"name": "medium", "max_tokens": 6, "temperature": 0.3, "top_p": 0.5},
    {"name": "high", "min_tokens": 8, "max_tokens": 200},
    {"name": "max", "max_tokens": 4000},
]
PRICED = [*TIERS[:4], {**TIERS[4], "max_price": "0.0001"}]


def chat_body(text: str, **fields: Any) -> dict[str, Any]:
    return body(messages=[{"role": "user", "content": text}], **fields)


class ByLength:
    """A classifier that goes by the length of the prompt."""

    def classify(self, conversation: Conversation) -> Prediction:
        hard = len(conversation.prompt) > 20
        return Prediction((0.0, 0.0, 0.0, 1.0) if hard else (1.0, 0.0, 0.0, 0.0))


@pytest.fixture
def _by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Router(ByLength(), RouterSettings())
    monkeypatch.setattr(Router, "load", lambda settings: made)


@pytest.mark.usefixtures("_by_length")
async def test_a_request_without_a_budget_is_routed() -> None:
    async with client(FakeEngine(), default_tier="auto", tiers=TIERS) as http:
        easy = await http.post(CHAT, json=chat_body("hi"))
        hard = await http.post(CHAT, json=chat_body("a prompt that is hard because it is long"))
        metrics = (await http.get("/metrics")).text

    assert easy.headers["x-budget-tier"] == "none"
    assert easy.json()["choices"][0]["thinking"]["tier"] == "none"
    assert easy.json()["choices"][0]["thinking"]["end_reason"] == "disabled"
    assert hard.headers["x-budget-tier"] == "high"
    thinking = hard.json()["choices"][0]["thinking"]
    assert (thinking["min_tokens"], thinking["max_tokens"]) == (8, 200)
    assert 8 <= thinking["tokens"] <= 200
    assert 'proctor_routed_total{source="router",tier="none"} 1.0' in metrics
    assert 'proctor_routed_total{source="router",tier="high"} 1.0' in metrics
    assert 'proctor_answer_tokens_count{tier="high"} 1.0' in metrics


@pytest.mark.usefixtures("_by_length")
async def test_a_stream_has_its_tier() -> None:
    async with client(FakeEngine(), tiers=TIERS) as http:
        response = await http.post(CHAT, json=chat_body("hi", reasoning_effort="low", stream=True))

    assert response.headers["x-budget-tier"] == "low"
    choices = [event.choice for event in parse_events(response.text) if event.data != "[DONE]"]
    assert [choice["thinking"]["tier"] for choice in choices if "thinking" in choice] == ["low"]


@pytest.mark.parametrize(("maximum", "tier"), [(10, "custom"), (0, "none")])
async def test_a_tier_without_thinking_is_not_named_beside_thinking(
    maximum: int, tier: str
) -> None:
    contradicting = body(reasoning_effort="none", max_thinking_tokens=maximum)
    async with client(FakeEngine(), tiers=TIERS) as http:
        response = await http.post(CHAT, json=contradicting)
        metrics = (await http.get("/metrics")).text

    thinking = response.json()["choices"][0]["thinking"]
    assert response.headers["x-budget-tier"] == (thinking["tier"] or "custom") == tier
    assert thinking["tokens"] <= thinking["max_tokens"] == maximum
    assert f'proctor_answer_tokens_count{{tier="{tier}"}} 1.0' in metrics


async def test_the_minimum_of_a_tier_is_clamped_where_there_is_no_room() -> None:
    async with client(FakeEngine(), tiers=TIERS) as http:
        given_by_tier = await http.post(CHAT, json=body(budget_tier="high", max_tokens=20))
        named = await http.post(CHAT, json=body(min_thinking_tokens=8, max_tokens=20))

    thinking = given_by_tier.json()["choices"][0]["thinking"]
    assert thinking["clamped"] is True
    assert thinking["min_tokens"] == thinking["max_tokens"] < 8
    assert named.status_code == 400
    assert named.json()["error"]["param"] == "min_thinking_tokens"


async def test_a_tier_has_its_own_sampling_parameters() -> None:
    engine = FakeEngine()
    async with client(engine, tiers=TIERS) as http:
        await http.post(CHAT, json=body(budget_tier="medium"))
        await http.post(CHAT, json=body(budget_tier="medium", temperature=1, top_p=1))
        await http.post(CHAT, json=body(budget_tier="low"))

    seen = [(job.sampling.temperature, job.sampling.top_p) for job in engine.jobs]
    assert seen == [(0.3, 0.5), (1, 1), (None, None)]


async def test_the_operators_ceiling_clamps() -> None:
    async with client(FakeEngine(), ceilings={"max_thinking_tokens": 5}) as http:
        response = await http.post(CHAT, json=body(max_thinking_tokens=9))

    thinking = response.json()["choices"][0]["thinking"]
    assert (thinking["max_tokens"], thinking["clamped"]) == (5, True)


async def test_the_cost_is_the_sum_of_its_parts() -> None:
    engine = FakeEngine(Script(("abc",), "de"))
    async with client(engine, prices=PRICES) as http:
        whole = (await http.post(CHAT, json=body())).json()
        options = {"stream": True, "stream_options": {"include_usage": True}}
        streamed = (await http.post(CHAT, json=body(**options))).text

    usage, cost = whole["usage"], whole["cost"]
    assert cost["currency"] == "USD"
    assert cost["prompt"] == pytest.approx(usage["prompt_tokens"] * 1e-6)
    parts = cost["prompt"] + cost["thinking"] + cost["answer"]
    assert cost["total"] == pytest.approx(parts)
    tokens = cost["thinking"] / 2e-6 + cost["answer"] / 4e-6
    assert tokens == pytest.approx(usage["completion_tokens"])
    assert [event.data["cost"] for event in parse_events(streamed) if "cost" in event.data] == [
        cost
    ]


async def test_a_tier_never_costs_more_than_its_max_price() -> None:
    engine = FakeEngine(Script(("a" * 500,), "b" * 500))
    async with client(engine, tiers=PRICED, prices=PRICES) as http:
        held = (await http.post(CHAT, json=body(budget_tier="max"))).json()
        long = chat_body("word " * 30, budget_tier="max")
        refused = await http.post(CHAT, json=long)

    assert 0.5e-4 < held["cost"]["total"] <= 1e-4
    assert held["choices"][0]["finish_reason"] == "length"
    assert held["choices"][0]["message"]["content"]
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "messages"


@given(
    prompt=st.integers(0, 10**6),
    price=st.decimals("0.000001", "1", places=6),
    prices=st.tuples(*[st.decimals("0", "100", places=4)] * 3),
    share=st.floats(0, 1),
)
def test_affordable_tokens_stay_within_the_price(
    prompt: int, price: Decimal, prices: tuple[Decimal, ...], share: float
) -> None:
    named = Prices(prompt=prices[0], thinking=prices[1], answer=prices[2])
    most = affordable(named, prompt, price)
    if most is None:
        assert Cost.of(named, prompt, 10**6, 10**6).total <= price
    elif most < 0:
        assert Cost.of(named, prompt, 0, 0).total > price
    else:
        thinking = int(most * share)
        assert Cost.of(named, prompt, thinking, most - thinking).total <= price
        dearest = max(prices[1], prices[2])
        assert prompt * prices[0] + (most + 1) * dearest > price * 1_000_000


@pytest.mark.usefixtures("_by_length")
async def test_a_dry_run_reports_what_a_request_would_get() -> None:
    engine = FakeEngine()
    async with client(engine, default_tier="auto", tiers=TIERS, prices=PRICES) as http:
        response = await http.post(
            ROUTE, json=chat_body("a prompt that is hard because it is long")
        )
        shown = response.json()
        chat = await http.post(CHAT, json=chat_body("a prompt that is hard because it is long"))
        plain = (await http.post(ROUTE, json=body(max_thinking_tokens=7))).json()
        bad = await http.post(ROUTE, json=body(max_thinking_tokens=-7))

    assert len(engine.jobs) == 1
    assert (shown["tier"], shown["source"], shown["field"]) == ("high", "router", None)
    assert shown["budget"]["min_tokens"] == 8
    assert shown["router"]["level"] == "high"
    assert shown["router"]["probabilities"] == {"none": 0, "low": 0, "medium": 0, "high": 1}
    assert shown["cost"]["least"] < chat.json()["cost"]["total"] < shown["cost"]["most"]
    assert (plain["source"], plain["field"]) == ("explicit", "max_thinking_tokens")
    assert (plain["tier"], plain["router"]) == (None, None)
    assert bad.status_code == 400


async def test_the_default_router_separates_small_talk_from_proofs() -> None:
    proof = "Prove that the square root of every prime is irrational."
    async with client(FakeEngine(), default_tier="auto") as http:
        easy = (await http.post(ROUTE, json=chat_body("hello there"))).json()
        hard = (await http.post(ROUTE, json=chat_body(proof))).json()

    assert easy["tier"] == "none"
    assert hard["tier"] == "high"
    assert 0 < len(hard["router"]["signals"]) <= 5


@pytest.mark.parametrize(
    ("given_settings", "named"),
    [
        ({"tiers": [{"name": "a", "max_tokens": 1}] * 2}, "tiers"),
        ({"tiers": [{"name": "auto", "max_tokens": 1}]}, "tiers.0"),
        ({"tiers": [{"name": "a", "min_tokens": 2, "max_tokens": 1}]}, "tiers.0"),
        ({"tiers": [{"name": "A b", "max_tokens": 1}]}, "tiers.0.name"),
        ({"tiers": []}, "tiers"),
        (
            {"tiers": [{"name": "a", "max_tokens": -1}, {"name": "b", "max_tokens": 9}]},
            "'a' has a larger max_tokens than 'b'",
        ),
        ({"tiers": PRICED}, "max_price"),
        ({"tiers": TIERS[:2]}, "efforts.medium"),
        ({"default_tier": "vast"}, "default_tier"),
        ({"ceilings": {"tier": "vast"}}, "ceilings.tier"),
        ({"router": {"levels": {"high": "vast"}}}, "router.levels.high"),
        ({"router": {"costs": {"high": [1, 1, 1, 1]}}}, "router.costs"),
        ({"prices": {"prompt": "-1", "thinking": "1", "answer": "1"}}, "prices.prompt"),
    ],
)
def test_an_invalid_setting_is_named(given_settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_settings(given_settings)


def test_an_unknown_classifier_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"router\.classifier.*'psychic'.*ensemble"):
        Router.load(RouterSettings(classifier="psychic"))


def test_the_router_minimizes_the_expected_cost() -> None:
    verdict = Prediction((0.9, 0.0, 0.0, 0.1))

    class Unsure:
        def classify(self, conversation: Conversation) -> Prediction:
            return verdict

    def level(none_to_high: float) -> str:
        costs = Costs(high=(none_to_high, 1, 1, 0))
        return (
            Router(Unsure(), RouterSettings(costs=costs))
            .classify_conversation(Conversation.of("?"))
            .level
        )

    assert level(2.0) == "none"
    assert level(1000.0) != "none"


def test_configured_tiers_must_fit_the_context() -> None:
    fitting = Settings(tiers=TIERS)
    check_tiers(fitting, 4000)
    with pytest.raises(ConfigError, match="'max'"):
        check_tiers(fitting, 3999)
    check_tiers(Settings(), 100)
