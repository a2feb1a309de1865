"""The endpoints of a gateway with several models."""

import asyncio
from typing import Any

import httpx
import pytest

from proctor.server.engines.fake import THINK, FakeEngine
from tests.server.api.test_errors import assert_error
from tests.server.harness import CHAT, Gate, body, merge_deltas, parse_events, with_timeout
from tests.server.models.two_models import MARKERS, large_engine, small_engine, two_models

ANSWERS = {"fake": "large", "small": "little", "tiny": "little"}
OWN_NAMES = {"fake": "fake", "small": "small", "tiny": "small"}


def fail() -> FakeEngine:
    raise ValueError("no such weights")


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_chat_is_answered_by_the_model_that_it_names(name: str) -> None:
    large, small = large_engine(), small_engine()
    async with two_models(large, small) as http:
        answer = await http.post(CHAT, json=body(model=name))
        stream = await http.post(CHAT, json=body(model=name, stream=True))

    assert answer.json()["model"] == OWN_NAMES[name]
    assert answer.json()["choices"][0]["message"]["content"] == ANSWERS[name]
    assert answer.headers["x-model"] == stream.headers["x-model"] == OWN_NAMES[name]
    chunks = [event for event in parse_events(stream.text) if event.data != "[DONE]"]
    deltas = [event.choice["delta"] for event in chunks if event.data["choices"]]
    assert merge_deltas(deltas)["content"] == ANSWERS[name]
    assert {event.data["model"] for event in chunks} == {OWN_NAMES[name]}
    assert [len(large.jobs), len(small.jobs)] == ([2, 0] if name == "fake" else [0, 2])


async def test_a_request_without_a_model_is_for_the_default_one() -> None:
    async with two_models() as http:
        answer = await http.post(CHAT, json=body(model=None))

    assert answer.json()["model"] == "fake"


async def test_each_model_has_its_own_template_and_markers() -> None:
    large, small = large_engine(), small_engine()
    async with two_models(large, small) as http:
        answers = [(await http.post(CHAT, json=body(model=name))).json() for name in ANSWERS]

    messages = [answer["choices"][0]["message"] for answer in answers]
    assert [message["reasoning_content"] for message in messages] == [
        "I am large.",
        "I am small.",
        "I am small.",
    ]
    assert THINK in large.jobs[0].prompt_ids
    assert bytes(small.jobs[0].prompt_ids[-len(MARKERS.start) - 1 : -1]) == b"<t>"


@pytest.mark.parametrize("name", ANSWERS)
async def test_the_other_generation_endpoints(name: str) -> None:
    said = [{"role": "user", "content": "hi"}]
    message = {"model": name, "max_tokens": 100, "messages": said}
    async with two_models() as http:
        answers = [
            await http.post("/v1/completions", json={"model": name, "prompt": "hi"}),
            await http.post("/v1/messages", json=message),
            await http.post("/v1/responses", json={"model": name, "input": "hi"}),
        ]

    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == answer.headers["x-model"] == OWN_NAMES[name]
        assert ANSWERS[name] in answer.text


@pytest.mark.parametrize("path", [CHAT, "/v1/route", "/v1/models/other"])
async def test_an_unknown_model_is_refused_with_all_names(path: str) -> None:
    async with two_models() as http:
        if path.endswith("other"):
            answer = await http.get(path)
        else:
            answer = await http.post(path, json=body(model="other"))

    error = assert_error(answer, 404, None if "models" in path else "model")
    assert error["message"].endswith("this server has 'fake', 'small', 'tiny'")


async def test_all_names_are_listed() -> None:
    small = small_engine(context_length=99)
    async with two_models(small=small) as http:
        cards = (await http.get("/v1/models")).json()["data"]
        card = (await http.get("/v1/models/tiny")).json()

    assert [(each["id"], each["root"]) for each in cards] == [
        ("fake", "fake"),
        ("small", "small"),
        ("tiny", "small"),
    ]
    assert card == cards[2]
    assert [each["max_model_len"] for each in cards] == [4096, 99, 99]


async def test_tiers_are_listed_by_model() -> None:
    own = [{"name": name, "max_tokens": 7} for name in ("none", "low", "medium", "high", "max")]
    async with two_models(model={"tiers": own}) as http:
        default = (await http.get("/v1/tiers")).json()
        named = (await http.get("/v1/tiers", params={"model": "fake"})).json()
        small = (await http.get("/v1/tiers", params={"model": "tiny"})).json()
        unknown = await http.get("/v1/tiers", params={"model": "other"})
        budget = (await http.post(CHAT, json=body(model="small", budget_tier="high"))).json()

    assert "small" not in assert_error(unknown, 404, "model")["message"]
    assert default == named
    assert {tier["name"]: tier.get("model") for tier in default["data"]} == {
        "none": None,
        "low": "small",
        "medium": None,
        "high": None,
        "max": None,
    }
    assert [tier["max_tokens"] for tier in small["data"]] == [7] * 5
    assert budget["choices"][0]["thinking"]["max_tokens"] == 7


@pytest.mark.parametrize("name", ANSWERS)
async def test_the_tokenizer_is_that_of_the_model(name: str) -> None:
    said = [{"role": "user", "content": "hi"}]
    async with two_models(small=small_engine(context_length=99)) as http:
        tokens = (await http.post("/tokenize", json={"model": name, "messages": said})).json()
        counted = await http.post(
            "/v1/messages/count_tokens",
            json={"model": name, "messages": said, "thinking": {"type": "adaptive"}},
        )
        text = await http.post("/detokenize", json={"model": name, "tokens": [104, 105]})

    assert tokens["max_model_len"] == (4096 if name == "fake" else 99)
    assert (THINK in tokens["tokens"]) is (name == "fake")
    assert counted.json()["input_tokens"] == tokens["count"]
    assert text.json()["prompt"] == "hi"


async def test_a_model_that_is_away_only_refuses_its_own_requests() -> None:
    async with two_models(small=fail) as http:
        away = await http.post(CHAT, json=body(model="tiny"))
        others = await http.post(CHAT, json=body())
        ready = await http.get("/ready")
        listed = (await http.get("/v1/models")).json()["data"]
        card = await http.get("/v1/models/small")
        up = await metric(http, "model_up", "small")

    error = assert_error(away, 503, None)
    assert error["message"] == "the model 'small' failed to load: see the server's log"
    assert_error(card, 503, None)
    assert others.json()["model"] == "fake"
    assert ready.json() == {"status": "ready", "models": {"small": "unavailable"}}
    assert [each["id"] for each in listed] == ["fake"]
    assert up == 0


async def test_an_engine_that_dies_takes_only_its_own_requests_with_it() -> None:
    async with two_models(small=small_engine(die_after=3)) as http:
        dead = await http.post(CHAT, json=body(model="small"))
        others = await http.post(CHAT, json=body())
        ready = await http.get("/ready")

    assert dead.status_code == 503
    assert others.status_code == 200
    assert ready.json()["models"] == {"small": "unavailable"}


async def test_a_full_queue_of_one_model_does_not_delay_another() -> None:
    gate = Gate(3)
    limits = {"max_running": 1, "max_waiting": 0}
    async with two_models(small=small_engine(before_token=gate), limits=limits) as http:
        running = asyncio.create_task(http.post(CHAT, json=body(model="small")))
        await with_timeout(gate.reached.wait())
        refused = await http.post(CHAT, json=body(model="small"))
        refused_stream = await http.post(CHAT, json=body(model="small", stream=True))
        other = await http.post(CHAT, json=body())
        gate.opened.set()
        first = await with_timeout(running)

    assert [refused.status_code, refused_stream.status_code] == [429, 429]
    assert [other.status_code, first.status_code] == [200, 200]


async def test_metrics_count_requests_by_the_model_that_serves_them() -> None:
    async with two_models() as http:
        for fields in ({}, {"model": "tiny"}, {"budget_tier": "low"}):
            await http.post(CHAT, json=body(**fields))
        counts = [await metric(http, "model_requests_total", name) for name in ("fake", "small")]
        up = await metric(http, "model_up", "small")

    assert counts == [1, 2]
    assert up == 1


async def test_the_openapi_document_allows_what_any_model_does() -> None:
    names = ("none", "low", "medium", "high", "max", "vast")
    own = [{"name": name, "max_tokens": 7} for name in names]
    async with two_models(model={"tiers": own}) as http:
        document = (await http.get("/openapi.json")).json()

    schemas = document["components"]["schemas"]
    tiers = schemas["ChatRequest"]["properties"]["budget_tier"]["anyOf"][0]["enum"]
    assert tiers == [*names, "auto"]
    tokens = schemas["DetokenizeRequest"]["properties"]["tokens"]["items"]
    assert tokens["maximum"] > 2**31  # the vocabularies differ


async def metric(http: httpx.AsyncClient, name: str, model: str) -> float | None:
    """Return the value of a metric for a model, or None if there is no such series."""
    prefix = f'proctor_{name}{{model="{model}"}} '
    lines: list[Any] = (await http.get("/metrics")).text.splitlines()
    found = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    return float(found[0]) if found else None
