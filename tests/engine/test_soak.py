"""2,000 requests at 64 streams, aborts among them, in a cache too small for all of them."""

import asyncio
import os
from random import Random

import httpx
import psutil

from tests.engine.asking import CHAT, ask, assert_kept, body, metric, random_request, until_idle
from tests.engine.prompts import chain
from tests.engine.served import Served

REQUESTS = 2000
STREAMS = 64
ABORTED = 0.1
LEAK = 128 * 2**20
"""Bytes by which the engine's processes may grow over the second half: their allocators reach a
level late, and a leak of 128 KiB to a request would show."""


async def test_a_long_run_keeps_every_budget_and_leaves_nothing_behind(served: Served) -> None:
    rng = Random(2501)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=served.url, timeout=600, limits=limits) as http:
        await stream_all(served, http, rng, REQUESTS // 2)
        warm = engine_memory()
        await stream_all(served, http, rng, REQUESTS // 2)
        await until_idle(http)
        assert engine_memory() - warm < LEAK
        await crowd(served, http)
        assert await metric(http, "vllm:num_preemptions_total") > 0
    assert served.run(served.engine.check_slots()) <= STREAMS


async def stream_all(served: Served, http: httpx.AsyncClient, rng: Random, count: int) -> None:
    """Ask `count` times, some without waiting for the end; each answer is recounted at once."""
    waiting = asyncio.Queue[tuple[dict[str, object], int | None]]()
    for _ in range(count):
        given_up_after = rng.randint(1, 60) if rng.random() < ABORTED else None
        waiting.put_nowait((random_request(served, rng), given_up_after))

    async def work() -> None:
        while not waiting.empty():
            request, given_up_after = waiting.get_nowait()
            if given_up_after is None:
                assert_kept(served, request, await ask(http, request))
            else:
                await give_up(http, {**request, "stream": True}, given_up_after)

    await asyncio.gather(*(work() for _ in range(STREAMS)))


async def crowd(served: Served, http: httpx.AsyncClient) -> None:
    """Ask for more at a time than the cache holds, in one request: however slowly 64 streams are
    begun and read on a busy machine, some of these choices are preempted."""
    length = {"min_thinking_tokens": 900, "max_thinking_tokens": 900, "max_tokens": 1300}
    asked = body(served, chain(Random(1), 3), n=16, thinking={"on_loop": "off"}, **length)
    response = await http.post(CHAT, json=asked)
    assert response.status_code == 200, response.text
    assert {choice["thinking"]["tokens"] for choice in response.json()["choices"]} == {900}


async def give_up(http: httpx.AsyncClient, request: dict[str, object], lines: int) -> None:
    async with http.stream("POST", CHAT, json=request) as response:
        async for _ in response.aiter_lines():
            lines -= 1
            if not lines:
                return


def engine_memory() -> int:
    """Resident bytes of the engine's processes."""
    children = psutil.Process(os.getpid()).children(recursive=True)
    return sum(child.memory_info().rss for child in children if "VLLM" in child.name())
