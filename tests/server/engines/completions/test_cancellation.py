"""Requests that are cancelled at any step leave no connection open."""

import asyncio
import time
from typing import Any

import pytest

from proctor.server import http_client
from proctor.server.engines.completions.upstream import Upstream
from tests.server.engines.completions.fake_upstream import (
    DONE,
    FakeServer,
    Fault,
    Reply,
    stream,
    token_event,
)
from tests.server.harness import with_timeout
from tests.server.sockets import cancel_after, connections_to

IDLE = 16
"""How many connections are idle."""

KEEPALIVE_SECONDS = 0.05

STEPS = range(12)
"""Iterations of the event loop before the cancellation; at the last, the request has arrived."""


async def consume(upstream: Upstream) -> None:
    async for _ in upstream.complete({}):
        pass


@pytest.mark.parametrize("steps", STEPS)
async def test_a_cancelled_request_closes_all_expired_connections(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Expired connections are closed by the next request: here, by the one that is cancelled."""
    monkeypatch.setattr(http_client, "KEEPALIVE_SECONDS", KEEPALIVE_SECONDS)
    all_are_there = asyncio.Barrier(IDLE)

    async def answer(body: dict[str, Any]) -> Reply:
        await all_are_there.wait()  # so that each request needs a connection of its own
        return stream(token_event(1, finish="stop"), DONE)

    upstream = server.connect(answer)
    await asyncio.gather(*(consume(upstream) for _ in range(IDLE)))
    assert len({*server.peers}) == IDLE
    # Not asyncio's: while the event loop stands still, no timer closes them.
    time.sleep(2 * KEEPALIVE_SECONDS)  # noqa: ASYNC251

    await cancel_after(asyncio.create_task(consume(upstream)), steps)
    if steps > 0:  # the request had begun
        assert connections_to(server.port) == 0
    await upstream.aclose()

    await asyncio.sleep(0)
    assert connections_to(server.port) == 0


@pytest.mark.parametrize("steps", STEPS)
async def test_a_cancelled_stream_closes_its_connection(server: FakeServer, steps: int) -> None:
    upstream = server.connect(lambda _: stream(token_event(1), Fault.HANG))
    has_begun = asyncio.Event()

    async def read() -> None:
        async for _ in upstream.complete({}):
            has_begun.set()

    reading = asyncio.create_task(read())
    await has_begun.wait()
    await cancel_after(reading, steps)

    assert connections_to(server.port) == 0
    await with_timeout(server.abandoned.wait())


async def test_many_requests_cancelled_at_once_close_their_connections(server: FakeServer) -> None:
    upstream = server.connect(lambda _: stream(token_event(1), Fault.HANG))
    reading = [asyncio.create_task(consume(upstream)) for _ in range(IDLE)]
    for steps, task in enumerate(reading):
        await cancel_after(task, steps)

    assert connections_to(server.port) == 0
