"""Stall detection distinguishes a hanging engine from a slow one, beside two busy loops."""

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.engine.client import CHAT
from tests.engine.serve_process import (
    PATIENCE,
    SHORT,
    Server,
    busy_cores,
    is_gone,
    serve_process,
    until_status,
)

pytestmark = [pytest.mark.engine, pytest.mark.busy]

BUSY_STALL_SECONDS = 90
NO_WARM_UP = """
import proctor.server.engines.vllm.engine as under_test
async def nothing(engine): pass
under_test.warm_up = nothing
"""
"""Skips the warm-up, so that the first requests compile."""

STUCK_ON_SIGNAL = """
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
"""Makes every process of the server hang when it receives a signal."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a busy machine, with an empty compilation cache."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "sitecustomize.py").write_text(STUCK_ON_SIGNAL)
    env = {
        "PYTHONPATH": f"{folder}:{Path.cwd()}",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled"),
        "PROCTOR_LIMITS__BUSY_STALL_SECONDS": str(BUSY_STALL_SECONDS),
    }
    with serve_process(folder, code=NO_WARM_UP, env=env) as server:
        server.ready()
        with busy_cores():
            yield server


async def test_a_slow_compilation_does_not_count_as_a_stall(server: Server) -> None:
    before = server.engine()
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
        answer = await http.post(CHAT, json=SHORT | {"logprobs": True, "top_logprobs": 3})

    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["logprobs"]
    assert not any(map(is_gone, before))


@pytest.mark.parametrize("signal_number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGSTOP])
async def test_a_stuck_engine_is_detected_and_restarted(
    server: Server, signal_number: signal.Signals
) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
        await until_status(server, http, 200)
        core = server.core()
        core.send_signal(signal_number)
        await until_status(server, http, 503)
        await until_status(server, http, 200)
        answer = await http.post(CHAT, json=SHORT)

    assert is_gone(core)
    assert answer.status_code == 200


def test_no_engine_was_restarted_without_a_stall(server: Server) -> None:
    restarts = [line for line in server.text.splitlines() if "restarting it" in line]
    assert len(restarts) == 3, restarts
