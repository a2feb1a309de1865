"""2,000 requests on 64 streams, some of them aborted, with a KV cache too small for all."""

import asyncio
import os
from random import Random

import httpx
import psutil

from tests.engine.client import (
    CHAT,
    ask,
    assert_budget_kept,
    body,
    metric,
    random_request,
    until_idle,
)
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain

REQUESTS = 2000
STREAMS = 64
ABORTED = 0.1
MAX_GROWTH = 128 * 2**20
"""Bytes by which the engine's processes may grow over the second half: their allocators level off
late, and a leak of 128 KiB per request would be detected."""


async def test_a_long_run_keeps_every_budget_and_leaks_nothing(
    vllm_gateway: Gateway,
) -> None:
    rng = Random(2501)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=600, limits=limits) as http:
        await send_random_requests(vllm_gateway, http, rng, REQUESTS // 2)
        warm = engine_memory()
        await send_random_requests(vllm_gateway, http, rng, REQUESTS // 2)
        await until_idle(http)
        assert engine_memory() - warm < MAX_GROWTH
        await overfill_the_cache(vllm_gateway, http)
        assert await metric(http, "vllm:num_preemptions_total") > 0
    assert vllm_gateway.run(vllm_gateway.engine.check_slots()) <= STREAMS


async def send_random_requests(
    gateway: Gateway, http: httpx.AsyncClient, rng: Random, count: int
) -> None:
    """Send `count` requests, some of them aborted, and check the budget of each answer."""
    queue = asyncio.Queue[tuple[dict[str, object], int | None]]()
    for _ in range(count):
        lines = rng.randint(1, 60) if rng.random() < ABORTED else None
        queue.put_nowait((random_request(gateway, rng), lines))

    async def worker() -> None:
        while not queue.empty():
            request, lines = queue.get_nowait()
            if lines is None:
                assert_budget_kept(gateway, request, await ask(http, request))
            else:
                await send_and_disconnect(http, {**request, "stream": True}, lines)

    await asyncio.gather(*(worker() for _ in range(STREAMS)))


async def overfill_the_cache(gateway: Gateway, http: httpx.AsyncClient) -> None:
    """Request more choices at once than the cache holds, so that some are preempted.

    This holds however slowly 64 streams are started and read on a busy machine.
    """
    length = {"min_thinking_tokens": 900, "max_thinking_tokens": 900, "max_tokens": 1300}
    request = body(gateway, chain(Random(1), 3), n=16, thinking={"on_loop": "off"}, **length)
    response = await http.post(CHAT, json=request)
    assert response.status_code == 200, response.text
    assert {choice["thinking"]["tokens"] for choice in response.json()["choices"]} == {900}


async def send_and_disconnect(
    http: httpx.AsyncClient, request: dict[str, object], lines: int
) -> None:
    async with http.stream("POST", CHAT, json=request) as response:
        async for _ in response.aiter_lines():
            lines -= 1
            if not lines:
                return


def engine_memory() -> int:
    """Return the resident bytes of the engine's processes."""
    children = psutil.Process(os.getpid()).children(recursive=True)
    return sum(child.memory_info().rss for child in children if "VLLM" in child.name())
