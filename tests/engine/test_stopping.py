"""A server told to stop, in whatever state its engine is, leaves nothing behind."""

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.engine.subprocesses import (
    PATIENCE,
    Stream,
    ended_cleanly,
    is_gone,
    serving,
    shared_memory,
    until_gone,
)

pytestmark = pytest.mark.engine

RESTARTED = "restarting it"


async def test_in_the_moment_in_which_the_engine_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.ready()
        struck = server.engine()
        held = shared_memory(struck)
        server.core().send_signal(signal.SIGKILL)
        await ended_cleanly(server, held)

        assert all(map(is_gone, struck))


async def test_while_a_killed_engine_is_started_again(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.ready()
        struck = server.engine()
        held = shared_memory(struck)
        server.core().send_signal(signal.SIGKILL)
        server.said(RESTARTED)
        again = server.core()
        await ended_cleanly(server, held)

        assert all(map(is_gone, [*struck, again]))


async def test_while_it_loads_for_the_first_time(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        loading = server.core()
        await ended_cleanly(server, set())

        assert is_gone(loading)


async def test_ctrl_c_in_a_terminal_reaches_the_engine_only_when_the_answers_are_there(
    tmp_path: Path,
) -> None:
    env = {"PROCTOR_LIMITS__SHUTDOWN_GRACE_SECONDS": str(PATIENCE)}
    with serving(tmp_path, env=env) as server:
        async with httpx.AsyncClient(base_url=server.ready().url, timeout=PATIENCE) as http:
            running = Stream()
            reading = asyncio.create_task(running.read(http))
            await running.begun.wait()
            children = server.children()
            os.killpg(server.process.pid, signal.SIGINT)
            await reading
        assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0, server.text
        await asyncio.to_thread(until_gone, children)

        assert (running.status, running.name) == (200, "")
        assert "Traceback" not in server.text
