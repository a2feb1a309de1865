"""If `proctor serve` is killed, its engine and all its other child processes end."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.engine.client import CHAT
from tests.engine.serve_process import (
    ENDLESS_TOKENS,
    LONG_CONTEXT,
    PATIENCE,
    SHORT,
    WORKER_PROCESS,
    Server,
    Stream,
    has_title,
    serve_process,
    shared_memory,
    until_gone,
)
from tests.server.engines.processes.gateway_children import find_reaper, processes_with_mark
from tests.server.harness import listening_socket

pytestmark = pytest.mark.engine

UNLIMITED_GRAMMARS = {"PROCTOR_GRAMMARS__SECONDS": "10000", "PROCTOR_GRAMMARS__MEMORY_MIB": "4096"}
SLOW_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {f"p{i}": {"type": "integer"} for i in range(400)},
    "minProperties": 200,
    "maxProperties": 300,
}
"""Its grammar takes minutes to compile."""


def kill_and_assert_nothing_left(server: Server) -> None:
    """Kill a server, and check that no process or shared memory is left."""
    _, mark = find_reaper(server.process)
    children = server.children()
    segments = shared_memory([server.process, *children])
    assert len(processes_with_mark(mark)) > 1
    server.process.kill()
    server.process.wait()
    until_gone(children)
    assert processes_with_mark(mark) == []
    assert not {path for path in segments if path.exists()}


def compiling(server: Server) -> bool:
    """Return whether a child process has compiled a grammar for more than a second."""
    for child in server.children():
        with contextlib.suppress(psutil.Error):
            is_worker = child.ppid() != server.process.pid and not has_title(child, "")
            if is_worker and child.cpu_times().user > 1:
                return True
    return False


async def test_an_idle_gateway_is_killed_and_its_port_is_reused(tmp_path: Path) -> None:
    with listening_socket() as listener:
        port = listener.getsockname()[1]
    with serve_process(tmp_path, port=port) as server:
        kill_and_assert_nothing_left(server.ready())
    with serve_process(tmp_path, port=port) as again:
        async with httpx.AsyncClient(base_url=again.ready().url, timeout=PATIENCE) as http:
            answer = await http.post(CHAT, json=SHORT)

    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]


async def test_a_gateway_under_load_is_killed(tmp_path: Path) -> None:
    with serve_process(tmp_path, env=UNLIMITED_GRAMMARS | LONG_CONTEXT) as server:
        async with httpx.AsyncClient(base_url=server.ready().url, timeout=PATIENCE) as http:
            constrained = {**SHORT, "structured_outputs": {"json": SLOW_SCHEMA}}
            slow_request = asyncio.ensure_future(http.post(CHAT, json=constrained))
            async with asyncio.timeout(PATIENCE):
                while not compiling(server):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            streams = [Stream(ENDLESS_TOKENS) for _ in range(4)]
            reading = [asyncio.ensure_future(each.read(http)) for each in streams]
            await asyncio.gather(*(each.begun.wait() for each in streams))
            await asyncio.to_thread(kill_and_assert_nothing_left, server)
            ends = await asyncio.gather(slow_request, *reading, return_exceptions=True)

    assert all(isinstance(end, httpx.TransportError) for end in ends), ends


async def test_a_gateway_is_killed_while_it_loads_the_model(tmp_path: Path) -> None:
    with serve_process(tmp_path) as server:
        server.core()
        kill_and_assert_nothing_left(server)
    with serve_process(tmp_path, env=WORKER_PROCESS) as server:
        server.worker()
        kill_and_assert_nothing_left(server)
