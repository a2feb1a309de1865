"""`proctor serve` is killed: its engine, and all else that it has started, ends with it."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.engine.asking import CHAT
from tests.engine.subprocesses import (
    PATIENCE,
    SHORT,
    Server,
    Stream,
    serving,
    shared_memory,
    titled,
    until_gone,
)
from tests.server.engines.processes.gateway_children import find_reaper, processes_with_mark
from tests.server.harness import listening_socket

pytestmark = pytest.mark.engine

FOR_HOURS = {"PROCTOR_GRAMMARS__SECONDS": "10000", "PROCTOR_GRAMMARS__MEMORY_MIB": "4096"}
HOSTILE: dict[str, Any] = {
    "type": "object",
    "properties": {f"p{i}": {"type": "integer"} for i in range(400)},
    "minProperties": 200,
    "maxProperties": 300,
}
"""The grammar of this takes minutes to compile."""


def kill(server: Server) -> None:
    """Kill it, and see that nothing is left of it."""
    _, mark = find_reaper(server.process)
    left = server.children()
    held = shared_memory([server.process, *left])
    assert len(processes_with_mark(mark)) > 1
    server.process.kill()
    server.process.wait()
    until_gone(left)
    assert processes_with_mark(mark) == []
    assert not {path for path in held if path.exists()}


def compiling(server: Server) -> bool:
    """Whether something compiles a grammar that takes long."""
    for child in server.children():
        with contextlib.suppress(psutil.Error):
            apart = child.ppid() != server.process.pid and not titled(child, "")
            if apart and child.cpu_times().user > 1:
                return True
    return False


async def test_a_gateway_with_nothing_to_do_and_the_one_after_it(tmp_path: Path) -> None:
    with listening_socket() as bound:
        port = bound.getsockname()[1]
    with serving(tmp_path, port=port) as server:
        kill(server.ready())
    with serving(tmp_path, port=port) as again:
        async with httpx.AsyncClient(base_url=again.ready().url, timeout=PATIENCE) as http:
            answer = await http.post(CHAT, json=SHORT)

    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]


async def test_under_load(tmp_path: Path) -> None:
    with serving(tmp_path, env=FOR_HOURS) as server:
        async with httpx.AsyncClient(base_url=server.ready().url, timeout=PATIENCE) as http:
            bound = {**SHORT, "structured_outputs": {"json": HOSTILE}}
            asking = asyncio.ensure_future(http.post(CHAT, json=bound))
            async with asyncio.timeout(PATIENCE):
                while not compiling(server):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            streams = [Stream() for _ in range(4)]
            reading = [asyncio.ensure_future(each.read(http)) for each in streams]
            await asyncio.gather(*(each.begun.wait() for each in streams))
            await asyncio.to_thread(kill, server)
            ends = await asyncio.gather(asking, *reading, return_exceptions=True)

    assert all(isinstance(end, httpx.TransportError) for end in ends), ends


async def test_while_the_model_is_loaded(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.core()
        kill(server)
    with serving(tmp_path) as server:
        server.worker()
        kill(server)
