"""What holds on the V1 runner holds on vLLM's V2 runner."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any

import httpx
import pytest

from tests.engine.chains import assert_total_kept, random_chains
from tests.engine.client import (
    CHAT,
    ask,
    assert_budget_kept,
    body,
    metric,
    random_early_exit,
    random_request,
    until_idle,
)
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain
from tests.engine.v2.gateway import running_v2_gateway
from tests.engine.v2.law import assert_greedy_law, assert_sampled_law

pytestmark = pytest.mark.engine

REQUESTS = 100
AT_ONCE = 12
CACHE = 2**22
"""Bytes of the KV cache: too few for 12 streams, so that some are preempted."""

CHUNK = 32
"""The most tokens of a step, fewer than some prompts have, so that their prefill is chunked."""

LONG_MESSAGE = {"role": "system", "content": "Please read this first. " * 16}
"""A common prefix of several blocks of the cache."""

SCHEMA = {"type": "object", "properties": {"digit": {"enum": [3, 5]}}, "required": ["digit"]}


@pytest.fixture(scope="module")
def v2_gateway() -> Iterator[Gateway]:
    """A gateway over the V2 runner with chunked prefill, a prefix cache, and little memory."""
    arguments = {
        "kv_cache_memory_bytes": CACHE,
        "enable_chunked_prefill": True,
        "enable_prefix_caching": True,
        "max_num_batched_tokens": CHUNK,
        "max_model_len": 1024,
    }
    with running_v2_gateway(**arguments) as gateway:
        yield gateway


@pytest.fixture
async def http(v2_gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=v2_gateway.url, timeout=600) as client:
        yield client


async def test_100_random_requests_think_within_their_budgets(
    v2_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    """Some are preempted, some are prefilled in chunks, and every slot is used several times."""
    rng = Random(16)
    requests = [random_request(v2_gateway, rng, most=60) for _ in range(REQUESTS)]
    for request in requests[::4]:
        request["messages"] = [LONG_MESSAGE, *request["messages"]]
    for request in requests[1::2]:
        request["thinking"]["early_exit"] = random_early_exit(rng)
    slots = asyncio.Semaphore(AT_ONCE)

    async def ask_in_turn(request: dict[str, Any]) -> dict[str, Any]:
        async with slots:
            return await ask(http, request)

    answers = await asyncio.gather(*map(ask_in_turn, requests))
    for request, answer in zip(requests, answers, strict=True):
        assert_budget_kept(v2_gateway, request, answer)
    assert await metric(http, "vllm:num_preemptions_total") > 0
    assert await metric(http, "vllm:prefix_cache_hits_total") > 0
    prompts = [len(one.job.prompt_ids) for one in v2_gateway.engine.recordings.values()]
    assert max(prompts) > CHUNK


async def test_chains_share_one_budget(v2_gateway: Gateway, http: httpx.AsyncClient) -> None:
    rng = Random(20251130)
    early_exit = {"method": "confidence", "every": 8, "floor": 15.8, "threshold": 16.3}
    limits = {"max_thinking_tokens": 90, "min_thinking_tokens": 0, "max_tokens": 450}
    methods = ["vote", "first_agreement"]
    requests = [random_chains(v2_gateway, rng, methods, **limits) for _ in range(6)]
    for request in requests[::2]:
        request["thinking"]["early_exit"] = early_exit
    answers = await asyncio.gather(*(ask(http, request) for request in requests))
    for request, answer in zip(requests, answers, strict=True):
        assert_total_kept(v2_gateway, request, answer)


async def test_greedy_texts_equal_those_of_the_v1_runner(
    v2_gateway: Gateway, vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    rng = Random(2)
    requests = [
        {**random_request(v2_gateway, rng, most=40), "temperature": 0, "stream": False}
        for _ in range(12)
    ]
    ours = await asyncio.gather(*(ask(http, request) for request in requests))
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=600) as v1:
        theirs = await asyncio.gather(*(ask(v1, request) for request in requests))
    for one, other in zip(ours, theirs, strict=True):
        assert one["choices"] == other["choices"]
        assert one["usage"]["completion_tokens"] == other["usage"]["completion_tokens"]


async def test_each_choice_has_its_own_budget_and_seed(
    v2_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    request = body(
        v2_gateway, chain(Random(1), 6), n=4, temperature=1.0, seed=3, max_thinking_tokens=40
    )
    one, other = await asyncio.gather(ask(http, request), ask(http, request))
    assert one["choices"] == other["choices"]
    assert len({choice["message"]["reasoning_content"] for choice in one["choices"]}) > 1
    for choice in one["choices"]:
        count = len(v2_gateway.engine.thinking_ids(f"{one['id']}-{choice['index']}"))
        assert choice["thinking"]["tokens"] == count <= 40


async def test_a_minimum_equal_to_the_maximum_is_met_exactly(
    v2_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    async def thinking(exact: int) -> dict[str, Any]:
        request = body(
            v2_gateway,
            chain(Random(exact), 4),
            max_thinking_tokens=exact,
            min_thinking_tokens=exact,
            thinking={"on_loop": "off"},
        )
        budget: dict[str, Any] = (await ask(http, request))["choices"][0]["thinking"]
        return budget

    exact = (1, 7, 64, 133)
    answers = await asyncio.gather(*map(thinking, exact))
    assert tuple(answer["tokens"] for answer in answers) == exact


async def test_stops_logprobs_and_schemas_apply_to_the_answer(
    v2_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    question = chain(Random(6), 4)
    schema = {"type": "json_schema", "json_schema": {"name": "digit", "schema": SCHEMA}}
    stop, logprobs, constrained = await asyncio.gather(
        ask(http, body(v2_gateway, question, temperature=0, stop=["=", "answer is"])),
        ask(http, body(v2_gateway, question, temperature=0, logprobs=True, top_logprobs=2)),
        ask(http, body(v2_gateway, question, response_format=schema, max_thinking_tokens=20)),
    )
    assert "=" in stop["choices"][0]["message"]["reasoning_content"]
    assert stop["choices"][0]["message"]["content"] == "The "
    choice = logprobs["choices"][0]
    tokens = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == choice["message"]["content"]
    assert all(token["top_logprobs"][0]["logprob"] == token["logprob"] for token in tokens)
    assert json.loads(constrained["choices"][0]["message"]["content"])["digit"] in (3, 5)
    assert constrained["choices"][0]["thinking"]["tokens"] <= 20


async def test_the_slots_of_aborted_requests_are_used_again(
    v2_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    long = body(
        v2_gateway,
        chain(Random(1), 3),
        min_thinking_tokens=500,
        max_thinking_tokens=500,
        stream=True,
        thinking={"on_loop": "off"},
    )

    async def abort() -> None:
        async with http.stream("POST", CHAT, json=long) as response:
            async for line in response.aiter_lines():
                if line.startswith("event: reasoning"):
                    return

    await asyncio.gather(*(abort() for _ in range(AT_ONCE)))
    await until_idle(http)
    rng = Random(9)
    requests = [random_request(v2_gateway, rng, most=30) for _ in range(AT_ONCE)]
    answers = await asyncio.gather(*(ask(http, request) for request in requests))
    for request, answer in zip(requests, answers, strict=True):
        assert_budget_kept(v2_gateway, request, answer)


def test_greedy_continuations_are_identical_to_s1(
    v2_gateway: Gateway, vllm_gateway: Gateway
) -> None:
    assert_greedy_law(v2_gateway, vllm_gateway)


def test_sampled_continuations_have_the_distribution_of_s1(
    v2_gateway: Gateway, vllm_gateway: Gateway
) -> None:
    assert_sampled_law(v2_gateway, vllm_gateway)
