"""Thinking that ends early, on the real engine: budgets with probes, counted by token ids."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import httpx
import pytest

from tests.engine.client import (
    CHAT,
    ask,
    assert_budget_kept,
    body,
    random_early_exit,
    random_request,
)
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain


@pytest.fixture
async def http(vllm_gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=300, limits=limits) as client:
        yield client


async def test_budgets_include_the_probes(vllm_gateway: Gateway, http: httpx.AsyncClient) -> None:
    rng = Random(19)
    requests = [random_request(vllm_gateway, rng) for _ in range(150)]
    for request in requests:
        request["thinking"]["early_exit"] = random_early_exit(rng)
    # Not all at once: probes give way to requests.
    slots = asyncio.Semaphore(12)

    async def ask_in_turn(request: dict[str, Any]) -> dict[str, Any]:
        async with slots:
            return await ask(http, request)

    answers = await asyncio.gather(*map(ask_in_turn, requests))
    reasons: Counter[tuple[str, str]] = Counter()
    probed: Counter[str] = Counter()
    for request, answer in zip(requests, answers, strict=True):
        assert_budget_kept(vllm_gateway, request, answer)
        thinking = answer["choices"][0]["thinking"]
        method = request["thinking"]["early_exit"]["method"]
        reasons[method, thinking["end_reason"]] += 1
        probed[method] += thinking["probe_tokens"]
    assert reasons["confidence", "settled"], reasons
    assert reasons["confidence", "unsure"], reasons
    # How many probes there are depends on how fast the tokens come.
    assert probed["confidence"] == 0


async def test_a_structured_answer_follows_an_early_exit(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    request = body(
        vllm_gateway,
        chain(Random(4), 4),
        max_thinking_tokens=200,
        temperature=0,
        response_format={"type": "json_object"},
        thinking={"early_exit": {"method": "confidence", "threshold": 0.1, "every": 4}},
    )
    answer = await ask(http, request)
    (choice,) = answer["choices"]
    assert choice["thinking"]["end_reason"] == "settled"
    assert choice["message"]["content"].startswith("{")


async def test_an_early_exit_that_cannot_be_is_refused(http: httpx.AsyncClient) -> None:
    message = {"role": "user", "content": "hi"}
    for early_exit, field in (
        ({"every": 3}, "thinking.early_exit.method"),
        ({"method": "answer", "patience": 1}, "thinking.early_exit.patience"),
        ({"method": "confidence"}, "thinking.early_exit"),
        ({"method": "entropy", "threshold": 0}, "thinking.early_exit.threshold"),
        ({"method": "entropy", "limit": 1}, "thinking.early_exit.limit"),
    ):
        request = {"messages": [message], "thinking": {"early_exit": early_exit}}
        response = await http.post(CHAT, json=request)
        assert response.status_code == 400, response.text
        assert response.json()["error"]["param"] == field
