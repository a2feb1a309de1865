"""`proctor serve` while its engine is killed, hangs, and while it is told to stop."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from vllm.utils.system_utils import kill_process_tree

from tests.engine.asking import CHAT
from tests.engine.served import START_SECONDS

pytestmark = pytest.mark.engine

NOTICED_SECONDS = 10
PATIENCE = 120
SERVE = "import sys; from server.cli import main; sys.exit(main())"
LONG = {
    "model": "proctor-demo",
    "messages": [{"role": "user", "content": "Start with 7, add 5, times 3."}],
    "min_thinking_tokens": 1500,
    "max_thinking_tokens": 1500,
    "thinking": {"on_loop": "off"},
    "stream": True,
}
SHORT = {**LONG, "min_thinking_tokens": 0, "max_thinking_tokens": 20, "stream": False}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[psutil.Process, str]]:
    """A server in a process of its own, and where it listens."""
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, "serve", "--port", "0"],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(Path.cwd()), "PYTHONUNBUFFERED": "1"},
        )
    try:
        yield psutil.Process(process.pid), _address(log, process)
    finally:
        if process.poll() is None:
            kill_process_tree(process.pid)
        process.wait()


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        text = log.read_text()
        if "Ready after" in text and (found := re.search(r"http://[\d.:]+", text)):
            return found[0]
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def engine_processes(server: psutil.Process) -> list[psutil.Process]:
    """vLLM's engine and its workers."""
    named = ("EngineCore", "Worker")
    return [
        child
        for child in server.children(recursive=True)
        if any(name in " ".join(child.cmdline()) for name in named)
    ]


class Stream:
    """One long stream: when it has begun, and how it ended."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.status = 0
        self.name = ""
        self.data: Any = None

    async def read(self, http: httpx.AsyncClient) -> None:
        """Read it to its end; of its events the last one is kept."""
        name = ""
        async with http.stream("POST", CHAT, json=LONG) as response:
            self.status = response.status_code
            async for line in response.aiter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                    self.begun.set()
                elif line.startswith("data: {"):
                    self.name, self.data = name, json.loads(line.removeprefix("data: "))
                elif not line:
                    name = ""


async def until(http: httpx.AsyncClient, status: int, seconds: float) -> None:
    """Until `/ready` has this status."""
    async with asyncio.timeout(seconds):
        while True:
            if (await http.get("/ready")).status_code == status:
                return
            await asyncio.sleep(0.05)


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def test_an_engine_that_hangs_is_noticed_though_nobody_asks(
    server: tuple[psutil.Process, str],
) -> None:
    process, url = server
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http:
        await until(http, 200, PATIENCE)
        for victim in engine_processes(process):
            victim.send_signal(signal.SIGSTOP)
        await until(http, 503, NOTICED_SECONDS)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
async def test_service_resumes(server: tuple[psutil.Process, str], blow: signal.Signals) -> None:
    process, url = server
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http:
        await until(http, 200, PATIENCE)
        streams = [Stream() for _ in range(4)]
        reading = asyncio.gather(*(each.read(http) for each in streams))
        await asyncio.gather(*(each.begun.wait() for each in streams))
        struck = engine_processes(process)
        assert struck
        for victim in struck:
            victim.send_signal(blow)
        await until(http, 503, NOTICED_SECONDS)
        refused = await http.post(CHAT, json=SHORT)
        await asyncio.wait_for(reading, PATIENCE)
        await until(http, 200, PATIENCE)
        answer = await http.post(CHAT, json=SHORT)

    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert {(each.status, each.name) for each in streams} == {(200, "error")}
    assert all(each.data["error"]["type"] == "server_error" for each in streams)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]
    assert all(map(is_gone, struck))


async def test_a_server_told_to_stop_ends_what_runs(server: tuple[psutil.Process, str]) -> None:
    process, url = server
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http:
        await until(http, 200, PATIENCE)
        running = Stream()
        reading = asyncio.create_task(running.read(http))
        await running.begun.wait()
        process.send_signal(signal.SIGTERM)
        await reading

    assert (running.status, running.name) == (200, "")
    assert running.data["choices"][0]["finish_reason"] in ("stop", "length")
    assert await asyncio.to_thread(process.wait, PATIENCE) == 0
