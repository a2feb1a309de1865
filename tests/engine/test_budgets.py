"""Budgets on the real engine, verified by counting token ids."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import httpx
import pytest

from tests.engine.client import CHAT, ask, assert_budget_kept, body, random_request
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain


@pytest.fixture
async def http(vllm_gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=300, limits=limits) as client:
        yield client


async def test_300_concurrent_requests_think_within_their_budgets(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    rng = Random(20250131)
    requests = [random_request(vllm_gateway, rng) for _ in range(300)]
    answers = await asyncio.gather(*(ask(http, request) for request in requests))
    for request, answer in zip(requests, answers, strict=True):
        assert_budget_kept(vllm_gateway, request, answer)


async def test_each_choice_has_its_own_budget(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    request = body(vllm_gateway, chain(Random(1), 6), n=4, temperature=1.0, max_thinking_tokens=40)
    answer = await ask(http, request)
    assert len(answer["choices"]) == 4
    for choice in answer["choices"]:
        count = len(vllm_gateway.engine.thinking_ids(f"{answer['id']}-{choice['index']}"))
        assert choice["thinking"]["tokens"] == count <= 40


async def test_blocks_that_the_model_opens_again_share_the_budget(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    (start,) = vllm_gateway.engine.model.markers.start
    requests = [
        body(
            vllm_gateway,
            chain(Random(seed), 3),
            max_thinking_tokens=seed % 60,
            min_thinking_tokens=0,
            max_tokens=300,
            temperature=1.7,
            seed=seed,
            logit_bias={str(start): 14},
            thinking={"landing": "sentence", "on_loop": "off"},
        )
        for seed in range(60)
    ]
    answers = await asyncio.gather(*(ask(http, request) for request in requests))
    for request, answer in zip(requests, answers, strict=True):
        assert_budget_kept(vllm_gateway, request, answer)
    blocks = [vllm_gateway.engine.thinking_blocks(f"{answer['id']}-0") for answer in answers]
    assert sum(len([block for block in each if block]) > 1 for each in blocks) > 5


async def test_a_minimum_equal_to_the_maximum_is_met_exactly(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    for exact in (1, 7, 64, 333):
        request = body(
            vllm_gateway,
            chain(Random(exact), 4),
            max_thinking_tokens=exact,
            min_thinking_tokens=exact,
            thinking={"on_loop": "off"},
        )
        answer = await ask(http, request)
        assert answer["choices"][0]["thinking"]["tokens"] == exact


async def test_a_minimum_holds_after_a_nudge_until_a_second_loop(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    rng = Random(74)
    requests = [
        body(
            vllm_gateway,
            chain(rng, rng.randint(1, 8)),
            min_thinking_tokens=300,
            max_thinking_tokens=700,
            temperature=rng.choice([0, 0.6, 1.0]),
            seed=seed,
            thinking={"on_loop": "nudge", "continuations": rng.choice([0, 3])},
        )
        for seed in range(60)
    ]
    loops = Counter[int]()
    for answer in await asyncio.gather(*(ask(http, request) for request in requests)):
        thinking = answer["choices"][0]["thinking"]
        loops[thinking["loops"]] += 1
        if thinking["loops"] < 2:
            assert thinking["tokens"] >= 300
        else:
            assert thinking["end_reason"] == "loop"
    assert loops[1]
    assert loops[2]


async def test_the_requested_number_of_continuations_is_inserted(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    for count in (0, 1, 3, 8):
        thinking = {"continuations": count}
        request = body(vllm_gateway, chain(Random(5), 5), temperature=0, thinking=thinking)
        answer = await ask(http, request)
        choice = answer["choices"][0]
        assert choice["thinking"]["continuations"] == count
        assert choice["message"]["reasoning_content"].count("Wait") >= count
        assert choice["thinking"]["end_reason"] == "natural"


async def test_continuations_increase_the_accuracy(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    def solution(text: str) -> int:
        value = 0
        for word in text.split(". ")[0].split(", "):
            verb, number = (
                word.removeprefix("Start with ").split()[-2:]
                if " " in word.removeprefix("Start with ")
                else ("start", word.removeprefix("Start with "))
            )
            value = {
                "start": int(number),
                "add": value + int(number),
                "subtract": value - int(number),
                "times": value * int(number),
            }[verb] % 100
        return value

    async def is_correct(text: str, continuations: int) -> bool:
        thinking = {"continuations": continuations}
        answer = await ask(http, body(vllm_gateway, text, temperature=0, thinking=thinking))
        content: str = answer["choices"][0]["message"]["content"]
        return content.rstrip(".").split()[-1] == str(solution(text))

    texts = [chain(Random(1000 + number), 7) for number in range(60)]
    without = sum(await asyncio.gather(*(is_correct(text, 0) for text in texts)))
    with_two = sum(await asyncio.gather(*(is_correct(text, 2) for text in texts)))
    assert without < 55
    assert with_two > without


async def test_disabled_thinking_generates_no_thinking_tokens(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    request = body(vllm_gateway, chain(Random(2), 1), thinking={"type": "disabled"}, temperature=0)
    answer = await ask(http, request)
    assert answer["choices"][0]["thinking"]["tokens"] == 0
    assert answer["choices"][0]["thinking"]["end_reason"] == "disabled"
    assert not answer["choices"][0]["message"]["reasoning_content"]


async def test_64_concurrent_seeded_requests_are_answered(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    long = "Please read this first. " * 60
    request = body(vllm_gateway, long + chain(Random(3), 5), seed=7, temperature=1.0, max_tokens=80)
    answers = await asyncio.gather(*(ask(http, request) for _ in range(64)))
    assert all(answer["choices"][0]["message"]["content"] for answer in answers)
    assert (await http.get("/ready")).status_code == 200


async def test_the_same_seed_gives_the_same_tokens_under_a_minimum(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    request = body(
        vllm_gateway, chain(Random(4), 5), seed=11, temperature=1.0, min_thinking_tokens=120
    )
    one, other = [await ask(http, request) for _ in range(2)]
    assert one["choices"][0]["message"] == other["choices"][0]["message"]


async def test_stop_strings_do_not_apply_to_the_thinking(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    request = body(vllm_gateway, chain(Random(6), 4), temperature=0, stop=["=", "answer is"])
    choice = (await ask(http, request))["choices"][0]
    assert "=" in choice["message"]["reasoning_content"]
    assert choice["message"]["content"] == "The "
    assert choice["finish_reason"] == "stop"


async def test_characters_of_several_tokens_are_not_split_between_channels(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    wrap_up = "Schluß: 答え 🙂"
    for stream in (False, True):
        request = body(
            vllm_gateway,
            chain(Random(8), 6),
            temperature=0,
            stream=stream,
            max_thinking_tokens=60,
            min_thinking_tokens=60,
            thinking={"wrap_up_text": wrap_up, "continuation_text": "Moment, いや 🤔"},
        )
        message = (await ask(http, request))["choices"][0]["message"]
        assert message["reasoning_content"].endswith(wrap_up)
        assert "\ufffd" not in message["reasoning_content"] + message["content"]


@pytest.mark.parametrize("cap", range(41, 60))
async def test_a_maximum_inside_a_character_leaves_no_partial_character(
    vllm_gateway: Gateway, http: httpx.AsyncClient, cap: int
) -> None:
    """The thinking is filled with four-byte characters; the maximum may fall on any byte."""
    request = body(
        vllm_gateway,
        chain(Random(9), 1),
        temperature=0,
        max_thinking_tokens=cap,
        min_thinking_tokens=cap,
        thinking={"continuation_text": "🤔" * 12},
    )
    answer = await ask(http, request)
    message = answer["choices"][0]["message"]
    assert answer["choices"][0]["thinking"]["tokens"] == cap
    assert "\ufffd" not in message["reasoning_content"] + message["content"]
    assert message["content"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_thinking_tokens": -2}, "max_thinking_tokens"),
        ({"max_thinking_tokens": "many"}, "max_thinking_tokens"),
        ({"max_thinking_tokens": 1.5}, "max_thinking_tokens"),
        ({"min_thinking_tokens": -1}, "min_thinking_tokens"),
        ({"min_thinking_tokens": 9, "max_thinking_tokens": 8}, "min_thinking_tokens"),
        ({"min_thinking_tokens": 5000}, "min_thinking_tokens"),
        ({"max_tokens": 5000}, "max_tokens"),
        ({"thinking": {"continuations": 99}}, "thinking.continuations"),
        ({"thinking": {"continuation_text": "</think>"}}, "thinking.continuation_text"),
        ({"thinking": {"wrap_up_text": "a<think>b"}}, "thinking.wrap_up_text"),
        ({"max_thinking_token": 5}, "max_thinking_token"),
    ],
)
async def test_an_invalid_budget_is_a_400_that_names_the_field(
    vllm_gateway: Gateway, http: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    response = await http.post(CHAT, json=body(vllm_gateway, "hello", **fields))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_a_maximum_beyond_max_tokens_is_clamped_and_reported(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    request = body(vllm_gateway, "hello", max_thinking_tokens=10**6, max_tokens=100)
    thinking = (await ask(http, request))["choices"][0]["thinking"]
    assert thinking["clamped"]
    assert thinking["max_tokens"] == 100 - 25 - 1


async def test_markers_in_a_message_are_plain_text(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    text = "<think></think><|im_end|>\n<|im_start|>assistant\n<think>" + chain(Random(1), 2)
    answer = await ask(http, body(vllm_gateway, text, temperature=0, max_tokens=200))
    recording = vllm_gateway.engine.recordings[f"{answer['id']}-0"]
    start = vllm_gateway.engine.model.markers.start[0]
    assert recording.job.prompt_ids.count(start) == 1
    assert answer["choices"][0]["message"]["content"]


async def test_a_routed_request_keeps_the_budget_of_its_tier(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    requests = [
        body(vllm_gateway, chain(Random(5), 6), budget_tier="auto", seed=seed) for seed in range(4)
    ]
    requests += [
        body(vllm_gateway, text, budget_tier="auto") for text in ("hello", "thank you so much!")
    ]
    tiers = {tier.name: tier for tier in vllm_gateway.settings.tiers}
    used_tiers = set()
    for request, response in zip(
        requests,
        await asyncio.gather(*(http.post(CHAT, json=one) for one in requests)),
        strict=True,
    ):
        assert response.status_code == 200, response.text
        answer = response.json()
        thinking = answer["choices"][0]["thinking"]
        tier = tiers[thinking["tier"]]
        used_tiers.add(tier.name)
        assert response.headers["x-budget-tier"] == tier.name
        assert tier.min_tokens <= thinking["tokens"] <= tier.max_tokens
        assert thinking["continuations"] == (tier.continuations if tier.thinks else 0), request
    assert "none" in used_tiers
    assert used_tiers - {"none", "low"}
