"""`proctor serve` in a process of its own, what it says, and what it leaves behind."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from vllm.utils.system_utils import kill_process_tree

from tests.engine.asking import CHAT
from tests.engine.served import START_SECONDS

PATIENCE = 300
SERVE = "import sys; from proctor.server.cli.main import main; sys.exit(main())"
SPIN = "while True: pass"
SHARED_MEMORY = Path("/dev/shm")
LONG = {
    "model": "proctor-demo",
    "messages": [{"role": "user", "content": "Start with 7, add 5, times 3."}],
    "min_thinking_tokens": 1500,
    "max_thinking_tokens": 1500,
    "thinking": {"on_loop": "off"},
    "stream": True,
}
SHORT = {**LONG, "min_thinking_tokens": 0, "max_thinking_tokens": 20, "stream": False}


@dataclass(frozen=True)
class Server:
    """A server that was started.

    Attributes:
        process: the server's own.
        log: all that it, its engine and its helpers say.
    """

    process: psutil.Popen
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text()

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.said(r"http://[\d.:]+")

    def said(self, pattern: str) -> str:
        """Wait until it has said this."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.text):
                return found[0]
            assert self.process.poll() is None, self.text
            time.sleep(0.05)
        raise AssertionError(self.text)

    def ready(self) -> "Server":
        """Wait until it says so."""
        self.said("Ready after")
        return self

    def engine(self) -> list[psutil.Process]:
        """vLLM's engine and its workers."""
        return [child for child in self.children() if titled(child, "EngineCore", "Worker")]

    def core(self) -> psutil.Process:
        """vLLM's engine, without its workers; waits until it runs."""
        return self._the_one("EngineCore")

    def worker(self) -> psutil.Process:
        """The worker."""
        return self._the_one("Worker")

    def children(self) -> list[psutil.Process]:
        found: list[psutil.Process] = self.process.children(recursive=True)
        return found

    def _the_one(self, title: str) -> psutil.Process:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for child in self.children():
                if titled(child, title):
                    return child
            time.sleep(0.05)
        raise AssertionError(self.text)


@contextlib.contextmanager
def serving(
    folder: Path, *, code: str = "", env: Mapping[str, str] | None = None, port: int = 0
) -> Iterator[Server]:
    """A server, which may not be ready yet.

    Args:
        folder: where its log goes.
        code: Python to run in it before it serves.
        env: more of its environment.
        port: where it listens; 0 is anywhere.
    """
    log = folder / "log"
    told = os.environ | {"PYTHONPATH": str(Path.cwd()), "PYTHONUNBUFFERED": "1"} | dict(env or {})
    with log.open("w") as out:
        process = psutil.Popen(
            [sys.executable, "-c", f"{code}\n{SERVE}", "serve", "--port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=told,
            start_new_session=True,  # as in a terminal of its own
        )
    try:
        yield Server(process, log)
    finally:
        if process.poll() is None:
            kill_process_tree(process.pid)
        process.wait()


@contextlib.contextmanager
def busy_cores(count: int = 2) -> Iterator[None]:
    """Something else that wants all of the processor's time."""
    loops = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def titled(process: psutil.Process, *names: str) -> bool:
    """Whether vLLM has given the process one of these names."""
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return any(f"VLLM::{name}" in line for name in names)


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def shared_memory(processes: list[psutil.Process]) -> set[Path]:
    """The files of shared memory that these processes have."""
    mapped = set()
    for process in processes:
        with contextlib.suppress(FileNotFoundError):
            lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
            mapped |= {int(line.split()[4]) for line in lines if f" {SHARED_MEMORY}/" in line}
    return {path for path in SHARED_MEMORY.iterdir() if path.stat().st_ino in mapped}


class Stream:
    """One long stream: when it has begun, and how it ended."""

    def __init__(self, choices: int = 1) -> None:
        self._request = {**LONG, "n": choices}
        self.begun = asyncio.Event()
        self.status = 0
        self.name = ""
        self.data: Any = None

    async def read(self, http: httpx.AsyncClient) -> None:
        """Read it to its end; of its events the last one is kept."""
        name = ""
        try:
            async with http.stream("POST", CHAT, json=self._request) as response:
                self.status = response.status_code
                assert response.is_success, await response.aread()
                async for line in response.aiter_lines():
                    if line.startswith("event: "):
                        name = line.removeprefix("event: ")
                        self.begun.set()
                    elif line.startswith("data: {"):
                        self.name, self.data = name, json.loads(line.removeprefix("data: "))
                    elif not line:
                        name = ""
        finally:
            self.begun.set()  # or whoever waits for it would not see why it did not


async def until(http: httpx.AsyncClient, status: int) -> None:
    """Until `/ready` has this status."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if (await http.get("/ready")).status_code == status:
                return
            await asyncio.sleep(0.05)


def until_gone(processes: list[psutil.Process]) -> None:
    """Until all of them have ended."""
    deadline = time.monotonic() + PATIENCE
    while not all(map(is_gone, processes)):
        assert time.monotonic() < deadline, processes
        time.sleep(0.05)


async def ended_cleanly(server: Server, left: set[Path], since: int = 0) -> None:
    """Tell it to stop, and see that it does, and that nothing is left.

    Args:
        server: the server.
        left: shared memory that it must have given back.
        since: where in its log complaints are looked for.
    """
    children = server.children()
    left = left | shared_memory([child for child in children if titled(child, "")])
    server.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0, server.text
    await asyncio.to_thread(until_gone, children)  # the one that tells of leaks is the last of them
    said = server.text[since:]
    for complaint in ("Task cancelled", "leaked"):
        assert complaint not in said, said
    assert not {path for path in left if path.exists()}
