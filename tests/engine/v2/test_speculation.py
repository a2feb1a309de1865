"""Budgets and greedy texts are the same with speculative decoding."""

import asyncio
from random import Random

import httpx
import pytest

from tests.engine.client import ask, assert_budget_kept, metric, random_request
from tests.engine.gateway import Gateway
from tests.engine.v2.drafts import ask_both
from tests.waiting import PATIENCE

DRAFTS = [f"{method}-{count}" for method in ("ngram", "same", "shorter") for count in (1, 3, 7)]

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("draft_gateway", DRAFTS, indirect=True)]


async def test_random_requests_think_within_their_budgets(draft_gateway: Gateway) -> None:
    rng = Random(31)
    requests = [random_request(draft_gateway, rng, most=40) for _ in range(16)]
    async with httpx.AsyncClient(base_url=draft_gateway.url, timeout=600) as http:
        before = await draft_counts(http)  # the process counts those of earlier gateways as well
        answers = await asyncio.gather(*(ask(http, request) for request in requests))
        await until_counted(http, before)
    for request, answer in zip(requests, answers, strict=True):
        assert_budget_kept(draft_gateway, request, answer)


async def until_counted(http: httpx.AsyncClient, before: list[float]) -> None:
    """Wait until the counts by phase, read with the health check, are about vLLM's.

    Ours lack tokens of requests without a budget, and include those that vLLM drops because their
    request has ended meanwhile.
    """
    of_vllm, accepted, proposed = 0.0, 0.0, 0.0
    try:
        async with asyncio.timeout(PATIENCE):
            while not of_vllm or not 0.5 * of_vllm <= accepted <= min(2 * of_vllm, proposed):
                await asyncio.sleep(0.5)
                now = await draft_counts(http)
                of_vllm, accepted, proposed = (
                    new - old for new, old in zip(now, before, strict=True)
                )
    except TimeoutError:
        pytest.fail(f"vLLM's count, ours, and of all proposed: {of_vllm}, {accepted}, {proposed}")


async def draft_counts(http: httpx.AsyncClient) -> list[float]:
    """Return vLLM's count of accepted draft tokens, and ours of accepted and proposed ones."""
    return [
        await metric(http, name)
        for name in (
            "vllm:spec_decode_num_accepted_tokens_total",
            "proctor_accepted_draft_tokens_total",
            "proctor_draft_tokens_total",
        )
    ]


async def test_greedy_texts_equal_those_without_speculation(
    draft_gateway: Gateway, vllm_gateway: Gateway
) -> None:
    rng = Random(2)
    requests = [
        {**random_request(draft_gateway, rng, most=40), "temperature": 0, "stream": False}
        for _ in range(12)
    ]
    ours, theirs = await ask_both(draft_gateway, vllm_gateway, requests)
    for one, other in zip(ours, theirs, strict=True):
        assert one["choices"] == other["choices"]
