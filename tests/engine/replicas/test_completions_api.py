"""Budgets over `/v1/completions` of a replica, through a router that knows nothing else."""

import asyncio
from collections.abc import Iterator
from random import Random
from typing import Any

import httpx
import pytest

from proctor.server.engines.replicas.completions_api import CompletionsApi
from tests.engine.client import CHAT, ask, assert_budget_kept, body, random_request
from tests.engine.gateway import Gateway, running_gateway
from tests.engine.prompts import chain
from tests.engine.replicas.process import Replica, engine_settings
from tests.engine.replicas.router import running_router

pytestmark = pytest.mark.engine

COMPLETIONS = "/v1/completions"


@pytest.fixture(scope="module")
def routed(replica: Replica) -> Iterator[Gateway]:
    """A gateway that reaches the replica through the router."""
    with (
        running_router(replica.url) as router,
        running_gateway(**engine_settings([router])) as gateway,
    ):
        yield gateway


@pytest.fixture(scope="module")
def unrecorded(replica: Replica) -> Iterator[Gateway]:
    """A gateway that reaches the replica through a router which removes the record."""
    with (
        running_router(replica.url, keeps_unknown_fields=False) as router,
        running_gateway(**engine_settings([router])) as gateway,
    ):
        yield gateway


@pytest.fixture
async def http(routed: Gateway) -> Any:
    async with httpx.AsyncClient(base_url=routed.url, timeout=300) as client:
        yield client


async def test_random_budgets_are_kept(routed: Gateway, http: httpx.AsyncClient) -> None:
    rng = Random(7)
    requests = [random_request(routed, rng) for _ in range(100)]
    answers = await asyncio.gather(*(ask(http, request) for request in requests))
    for request, answer in zip(requests, answers, strict=True):
        assert_budget_kept(routed, request, answer)


async def test_greedy_answers_and_their_logprobs_are_those_of_the_other_endpoint(
    routed: Gateway, vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    fields = {"temperature": 0, "max_thinking_tokens": 40, "logprobs": True, "top_logprobs": 3}
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=300) as other:
        for number in range(5):
            request = body(routed, chain(Random(number), 4), **fields)
            one, two = await asyncio.gather(ask(http, request), ask(other, request))
            assert one["choices"][0]["message"] == two["choices"][0]["message"]
            tokens, others = (answer["choices"][0]["logprobs"]["content"] for answer in (one, two))
            for token, same in zip(tokens, others, strict=True):
                assert token["token"] == same["token"]
                assert token["logprob"] == pytest.approx(same["logprob"], abs=1e-3)
                assert len(token["top_logprobs"]) == 3


async def test_seeds_and_choices(routed: Gateway, http: httpx.AsyncClient) -> None:
    request = body(routed, chain(Random(3), 4), seed=5, n=3, temperature=1.0, max_tokens=60)
    one, two = await ask(http, request), await ask(http, request)
    texts = [[choice["message"] for choice in answer["choices"]] for answer in (one, two)]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 3


async def test_structured_output_is_refused(routed: Gateway, http: httpx.AsyncClient) -> None:
    request = body(routed, "hi", response_format={"type": "json_object"})
    response = await http.post(CHAT, json=request)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "response_format"
    assert CompletionsApi.path in response.json()["error"]["message"]


async def test_log_probabilities_of_a_prompt_are_those_of_the_other_endpoint(
    routed: Gateway, vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    request = {"model": "proctor-demo", "prompt": [5, 6, 7, 8], "prompt_logprobs": 2}
    request |= {"max_tokens": 1, "temperature": 0}
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=300) as other:
        one, two = await asyncio.gather(
            *(client.post(COMPLETIONS, json=request) for client in (http, other))
        )
    (choice,), (same,) = one.json()["choices"], two.json()["choices"]
    assert len(choice["prompt_logprobs"]) == 4
    assert choice["prompt_logprobs"] == same["prompt_logprobs"]


async def test_without_the_record_minimums_are_refused_and_maximums_kept(
    unrecorded: Gateway,
) -> None:
    async with httpx.AsyncClient(base_url=unrecorded.url, timeout=300) as client:
        refused = await client.post(CHAT, json=body(unrecorded, "hi", min_thinking_tokens=9))
        assert refused.json()["error"]["param"] == "min_thinking_tokens"
        assert "VLLM_PLUGINS" in refused.json()["error"]["message"]
        for maximum in (0, 1, 7, 30):
            fields = {
                "max_thinking_tokens": maximum,
                "temperature": 0,
                "thinking": {"on_loop": "close"},
            }
            request = body(unrecorded, chain(Random(1), 6), min_thinking_tokens=0, **fields)
            assert_budget_kept(unrecorded, request, await ask(client, request))
