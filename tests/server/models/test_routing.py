"""Tiers that another model serves."""

from typing import Any

import pytest

from proctor.router import Conversation, Prediction
from proctor.server.admission.routing import Router
from proctor.server.config.budgets import RouterSettings
from proctor.server.engines.fake import FakeEngine, Script
from tests.server.api.test_errors import assert_error
from tests.server.auth.keys import bearer, configured_key
from tests.server.harness import CHAT, body, parse_events
from tests.server.models.two_models import (
    PRICES,
    SMALL_PRICES,
    TIERS,
    large_engine,
    small_engine,
    two_models,
)
from tests.server.responses import asking

ROUTE = "/v1/route"
LOW: dict[str, Any] = {"default_tier": "auto"}
TOOLS = [{"type": "function", "function": {"name": "add"}}]


class AlwaysLow:
    """A classifier that finds every prompt easy, but not trivial."""

    def classify(self, conversation: Conversation) -> Prediction:
        return Prediction((0.0, 1.0, 0.0, 0.0))


@pytest.fixture(autouse=True)
def _always_low(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Router(AlwaysLow(), RouterSettings())
    monkeypatch.setattr(Router, "load", lambda settings: made)


def fail() -> FakeEngine:
    raise ValueError("no such weights")


@pytest.mark.parametrize(
    "fields",
    [
        {"budget_tier": "low"},
        {"reasoning_effort": "low"},
        {"thinking": {"type": "auto"}},
        {"budget_tier": "auto", "model": None},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_tier_is_served_by_its_model(fields: dict[str, Any], stream: bool) -> None:
    large, small = large_engine(), small_engine()
    async with two_models(large, small) as http:
        answer = await http.post(CHAT, json=body(**fields, stream=stream))

    assert (answer.headers["x-model"], answer.headers["x-budget-tier"]) == ("small", "low")
    chunks = [event.data for event in parse_events(answer.text)] if stream else [answer.json()]
    assert {chunk["model"] for chunk in chunks if chunk != "[DONE]"} == {"small"}
    assert (len(large.jobs), len(small.jobs)) == (0, 1)
    assert small.jobs[0].budget.maximum == 20


@pytest.mark.parametrize(
    "fields",
    [
        {"budget_tier": "medium"},
        {"reasoning_effort": "high"},
        {"max_thinking_tokens": 20},
        {"enable_thinking": False},
        {"max_thinking_tokens": 5, "thinking": {"type": "auto"}, "min_thinking_tokens": 5},
    ],
)
async def test_other_budgets_are_served_by_the_model_that_the_request_names(
    fields: dict[str, Any],
) -> None:
    async with two_models(tiers=[*TIERS[:1], {**TIERS[1], "max_tokens": 3}, *TIERS[2:]]) as http:
        answer = await http.post(CHAT, json=body(**fields))

    assert answer.json()["model"] == "fake", answer.json()


@pytest.mark.parametrize("fields", [{"budget_tier": "low"}, {"thinking": {"type": "auto"}}])
async def test_a_request_that_names_a_further_model_is_served_by_it(fields: dict[str, Any]) -> None:
    tiers = [{"name": "none", "max_tokens": 0, "model": "small"}, *TIERS[1:]]
    async with two_models(tiers=tiers) as http:
        answer = await http.post(CHAT, json=body(model="small", **fields))

    assert answer.json()["model"] == "small"
    assert answer.headers["x-budget-tier"] == "low"


async def test_a_tier_has_the_texts_of_its_model() -> None:
    large, small = large_engine(), small_engine()
    own = {"budget": {"wrap_up_text": "Now:"}}
    async with two_models(large, small, model=own, budget={"wrap_up_text": "So:"}) as http:
        for tier in ("low", "high"):
            await http.post(CHAT, json=body(budget_tier=tier))

    texts = [bytes(engine.jobs[0].budget.wrap_up_ids) for engine in (small, large)]
    assert texts == [b"Now:", b"So:"]


async def test_the_route_tells_the_model_and_its_price() -> None:
    async with two_models(model={"prices": SMALL_PRICES}, prices=PRICES) as http:
        reports = {
            tier: (await http.post(ROUTE, json=body(budget_tier=tier))).json()
            for tier in ("auto", "low", "high")
        }
        before = reports["low"]["cost"]["expected"]
        answer = (await http.post(CHAT, json=body(budget_tier="low"))).json()
        await http.post(CHAT, json=body(model="fake", max_thinking_tokens=20))
        after = (await http.post(ROUTE, json=body(budget_tier="low"))).json()

    assert {tier: report["model"] for tier, report in reports.items()} == {
        "auto": "small",
        "low": "small",
        "high": "fake",
    }
    assert reports["auto"]["router"]["level"] == "low"
    assert before is None
    assert after["cost"]["expected"] == pytest.approx(answer["cost"]["total"])
    assert reports["high"]["cost"]["most"] > 9 * reports["low"]["cost"]["most"]


UNFIT = [
    ({"logit_bias": {"65": -1}}, 400, "logit_bias"),
    ({"tools": TOOLS}, 400, "tools"),
    ({"messages": [{"role": "user", "content": "x" * 99}]}, 400, "messages"),
]


@pytest.mark.parametrize(("fields", "status", "param"), UNFIT)
async def test_what_the_model_of_a_selected_tier_cannot_serve_is_refused(
    fields: dict[str, Any], status: int, param: str
) -> None:
    async with two_models(small=small_engine(context_length=90)) as http:
        answer = await http.post(CHAT, json=body(budget_tier="low", **fields))

    assert_error(answer, status, param)


@pytest.mark.parametrize(("fields", "status", "param"), [UNFIT[0], UNFIT[2]])
async def test_it_is_served_by_the_named_model_if_the_router_has_chosen_the_tier(
    fields: dict[str, Any], status: int, param: str
) -> None:
    async with two_models(small=small_engine(context_length=90), **LOW) as http:
        answer = await http.post(CHAT, json=body(**fields))
        route = await http.post(ROUTE, json=body(**fields))

    assert (answer.headers["x-model"], answer.headers["x-budget-tier"]) == ("fake", "low")
    assert route.json()["model"] == "fake"


async def test_tools_that_the_model_of_a_tier_cannot_call_stay_with_the_named_model() -> None:
    large = asking.engine(Script((), "large"))
    async with two_models(large, **LOW) as http:
        answer = await http.post(CHAT, json=body(tools=TOOLS))

    assert answer.json()["model"] == "fake"
    assert len(large.jobs) == 1


async def test_what_no_model_can_serve_is_refused() -> None:
    async with two_models(**LOW) as http:
        answer = await http.post(CHAT, json=body(tools=TOOLS))

    assert_error(answer, 400, "tools")


async def test_while_the_model_of_a_tier_is_away() -> None:
    async with two_models(small=fail, **LOW) as http:
        routed = await http.post(CHAT, json=body())
        selected = await http.post(CHAT, json=body(budget_tier="low"))
        other = await http.post(CHAT, json=body(budget_tier="high"))

    assert routed.json()["model"] == "fake"
    assert_error(selected, 503, None)
    assert other.status_code == 200


async def test_a_key_that_does_not_allow_the_model_of_a_tier() -> None:
    only_large, token = configured_key("one", models=["fake"])
    both, other_token = configured_key("two", models=["fake", "tiny"])
    async with two_models(keys=[only_large, both], **LOW) as http:

        async def post(token: str, **fields: Any) -> Any:
            return await http.post(CHAT, json=body(**fields), headers=bearer(token))

        routed, selected = await post(token), await post(token, budget_tier="low")
        named = await post(token, model="small")
        allowed = await post(other_token)

    assert routed.json()["model"] == "fake"
    assert assert_error(selected, 403, "model")["message"].endswith("served by the model 'small'")
    assert_error(named, 403, "model")
    assert allowed.json()["model"] == "small"


async def test_a_keys_tier_must_exist_in_the_model_that_it_requests() -> None:
    names = ("none", "low", "medium", "high", "max", "vast")
    tiers = [{"name": name, "max_tokens": 9} for name in names]
    key, token = configured_key("one", tier="vast")
    own = {"tiers": tiers}
    async with two_models(model=own, tiers=tiers, keys=[key]) as http:
        answer = await http.post(CHAT, json=body(model="small"), headers=bearer(token))

    assert answer.status_code == 200


async def test_a_ceiling_may_lower_a_request_to_the_tier_of_another_model() -> None:
    async with two_models(ceilings={"tier": "low"}) as http:
        answer = (await http.post(CHAT, json=body(budget_tier="max"))).json()

    assert answer["model"] == "small"
    assert answer["choices"][0]["thinking"]["clamped"] is True


async def test_raw_prompts_stay_with_the_model_that_the_request_names() -> None:
    raw = {"model": "fake", "prompt": "hi"}
    async with two_models(default_tier="low") as http:
        selected = await http.post("/v1/completions", json={**raw, "budget_tier": "low"})
        default = await http.post("/v1/completions", json=raw)
        small = await http.post(
            "/v1/completions", json={**raw, "model": "small", "budget_tier": "low"}
        )

    assert_error(selected, 400, "budget_tier")
    assert default.json()["model"] == "fake"
    assert small.json()["model"] == "small"


async def test_a_conversation_goes_on_in_another_model() -> None:
    """The thinking of a turn counts against its budget, whichever model it is from."""
    large, small = large_engine(), small_engine()
    said = {"role": "user", "content": "hi"}
    message = {"model": "fake", "max_tokens": 1000, "messages": [said]}
    async with two_models(large, small) as http:
        first = await http.post("/v1/messages", json={**message, "budget_tier": "max"})
        use = {"type": "tool_use", "id": "1", "name": "add", "input": {}}
        result = {"type": "tool_result", "tool_use_id": "1", "content": "3"}
        messages = [
            said,
            {"role": "assistant", "content": [first.json()["content"][0], use]},
            {"role": "user", "content": [result]},
        ]
        second = await http.post(
            "/v1/messages", json={**message, "messages": messages, "budget_tier": "low"}
        )

    assert (first.json()["model"], second.json()["model"]) == ("fake", "small")
    spent = first.json()["thinking"]["tokens"]
    assert spent > 0
    assert small.jobs[0].budget.maximum == 20 - spent


async def test_a_stored_response_is_continued_by_another_model(url: str) -> None:
    large, small = large_engine(), small_engine()
    asked = {"model": "fake", "input": "What?", "store": True}
    async with two_models(large, small, ledger={"url": url}) as http:
        first = (await http.post("/v1/responses", json={**asked, "budget_tier": "high"})).json()
        second = await http.post(
            "/v1/responses",
            json={**asked, "previous_response_id": first["id"], "budget_tier": "low"},
        )
        queued = await http.post(
            "/v1/responses", json={**asked, "background": True, "budget_tier": "low"}
        )

    assert (first["model"], second.json()["model"]) == ("fake", "small")
    assert b"large" in bytes(token for token in small.jobs[0].prompt_ids if token < 256)
    assert (queued.json()["model"], queued.headers["x-model"]) == ("small", "small")


async def test_the_model_in_a_header_may_have_any_name() -> None:
    engine = FakeEngine(Script(), name="größtes Modell/1")
    async with two_models(engine) as http:
        answer = await http.post(CHAT, json=body(model=None))

    assert answer.headers["x-model"] == "gr%C3%B6%C3%9Ftes Modell/1"
