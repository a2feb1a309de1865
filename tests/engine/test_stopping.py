"""A server that is stopped leaves no process or shared memory, whatever state its engine is in."""

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.engine.serve_process import (
    PATIENCE,
    Stream,
    is_gone,
    serve_process,
    shared_memory,
    stop_cleanly,
    until_gone,
)

pytestmark = pytest.mark.engine

RESTARTED = "restarting it"


async def test_sigterm_right_after_the_engine_was_killed(tmp_path: Path) -> None:
    with serve_process(tmp_path) as server:
        server.ready()
        processes = server.engine()
        segments = shared_memory(processes)
        server.core().send_signal(signal.SIGKILL)
        await stop_cleanly(server, segments)

        assert all(map(is_gone, processes))


async def test_sigterm_while_a_killed_engine_restarts(tmp_path: Path) -> None:
    with serve_process(tmp_path) as server:
        server.ready()
        processes = server.engine()
        segments = shared_memory(processes)
        server.core().send_signal(signal.SIGKILL)
        server.wait_for_output(RESTARTED)
        restarted = server.core()
        await stop_cleanly(server, segments)

        assert all(map(is_gone, [*processes, restarted]))


async def test_sigterm_while_the_engine_loads(tmp_path: Path) -> None:
    with serve_process(tmp_path) as server:
        loading = server.core()
        await stop_cleanly(server, set())

        assert is_gone(loading)


async def test_ctrl_c_reaches_the_engine_only_after_the_answers(
    tmp_path: Path,
) -> None:
    env = {"PROCTOR_LIMITS__SHUTDOWN_GRACE_SECONDS": str(PATIENCE)}
    with serve_process(tmp_path, env=env) as server:
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
