"""What tells an engine that hangs from one that is slow, beside two busy loops."""

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.engine.asking import CHAT
from tests.engine.subprocesses import (
    PATIENCE,
    SHORT,
    Server,
    busy_cores,
    is_gone,
    serving,
    until,
)

pytestmark = pytest.mark.engine

BUSY_STALL_SECONDS = 90
COLD = """
import proctor.server.engines.vllm as under_test
async def nothing(engine): pass
under_test.warm_up = nothing
"""
"""Leaves all that is slow the first time to the first requests."""

STUCK = """
import signal, threading
def deadlock(*_):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
def livelock(*_):
    while True: pass
signal.signal(signal.SIGUSR1, deadlock)
signal.signal(signal.SIGUSR2, livelock)
"""
"""Has every process of the server get stuck at a signal."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a machine that has too much to do, with nothing compiled yet."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "sitecustomize.py").write_text(STUCK)
    env = {
        "PYTHONPATH": f"{folder}:{Path.cwd()}",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled"),
        "PROCTOR_LIMITS__BUSY_STALL_SECONDS": str(BUSY_STALL_SECONDS),
    }
    with serving(folder, code=COLD, env=env) as server:
        server.ready()
        with busy_cores():
            yield server


async def test_a_compile_is_waited_for(server: Server) -> None:
    before = server.engine()
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
        answer = await http.post(CHAT, json=SHORT | {"logprobs": True, "top_logprobs": 3})

    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["logprobs"]
    assert not any(map(is_gone, before))


@pytest.mark.parametrize("blow", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGSTOP])
async def test_a_worker_that_is_stuck_is_given_up(server: Server, blow: signal.Signals) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
        await until(http, 200)
        struck = server.worker()
        struck.send_signal(blow)
        await until(http, 503)
        await until(http, 200)
        answer = await http.post(CHAT, json=SHORT)

    assert is_gone(struck)
    assert answer.status_code == 200


def test_none_was_given_up_without_a_reason(server: Server) -> None:
    given_up = [line for line in server.text.splitlines() if "restarting it" in line]
    assert len(given_up) == 3, given_up
