"""The engine is shut down after the streams that need it."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm", reason="the CPU engine is not installed")

from proctor.replica.drain import Drain
from tests.waiting import PATIENCE


async def events(gate: asyncio.Event) -> AsyncIterator[int]:
    yield 1
    await gate.wait()
    yield 2


def engine(calls: list[Any]) -> Any:
    return SimpleNamespace(shutdown=lambda timeout=None: calls.append(timeout))


async def test_it_waits_for_the_streams_that_need_the_engine() -> None:
    calls: list[Any] = []
    drain, gate, shut_down = Drain(), asyncio.Event(), engine(calls)
    drain.install(shut_down)
    stream = drain.follow(events(gate))
    assert await anext(stream) == 1
    shutting_down = asyncio.create_task(asyncio.to_thread(shut_down.shutdown, timeout=PATIENCE))
    while not drain.begun:  # noqa: ASYNC110 - set by another thread
        await asyncio.sleep(0.01)
    assert not calls
    gate.set()
    assert [event async for event in stream] == [2]
    await asyncio.wait_for(shutting_down, PATIENCE)
    (left,) = calls
    assert 0 <= left <= PATIENCE


@pytest.mark.parametrize("seconds", [None, 0, 0.01])
async def test_but_no_longer_than_the_timeout(seconds: float | None) -> None:
    calls: list[Any] = []
    drain, shut_down = Drain(), engine(calls)
    drain.install(shut_down)
    stream = drain.follow(events(asyncio.Event()))
    await anext(stream)
    await asyncio.to_thread(shut_down.shutdown, timeout=seconds)
    await stream.aclose()
    assert calls == [None if seconds is None else 0]


async def test_a_stream_that_its_client_leaves_is_not_waited_for() -> None:
    calls: list[Any] = []
    drain, shut_down = Drain(), engine(calls)
    drain.install(shut_down)
    stream = drain.follow(events(asyncio.Event()))
    await anext(stream)
    await stream.aclose()
    await asyncio.to_thread(shut_down.shutdown, timeout=PATIENCE)
    assert len(calls) == 1
