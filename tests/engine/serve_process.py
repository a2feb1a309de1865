"""`proctor serve` with the real engine in a separate process: its output and its resources."""

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

from tests.engine.client import CHAT
from tests.engine.gateway import START_SECONDS

PATIENCE = 300
SERVE = "import sys; from proctor.server.cli.main import main; sys.exit(main())"
SPIN = "while True: pass"
SHARED_MEMORY = Path("/dev/shm")
LONG_TOKENS = 1500
LONG = {
    "model": "proctor-demo",
    "messages": [{"role": "user", "content": "Start with 7, add 5, times 3."}],
    "min_thinking_tokens": LONG_TOKENS,
    "max_thinking_tokens": LONG_TOKENS,
    "thinking": {"on_loop": "off"},
    "stream": True,
}
WORKER_PROCESS = {"PROCTOR_ENGINE__DISTRIBUTED_EXECUTOR_BACKEND": "mp"}
"""Runs the worker in a process of its own, as if there were several."""

ENDLESS_TOKENS = 30_000
LONG_CONTEXT = {
    "PROCTOR_ENGINE": json.dumps(
        {"max_model_len": 32_768, "hf_overrides": {"max_position_embeddings": 32_768}}
    )
}
"""Leaves room for streams that last for a minute on a fast machine, and still run when a test that
is slow itself kills their engine. What the model writes there makes no sense."""

SHORT = {**LONG, "min_thinking_tokens": 0, "max_thinking_tokens": 20, "stream": False}


@dataclass(frozen=True)
class Server:
    """A server process.

    Attributes:
        process: the process of the server.
        log: the output of the server, its engine and its other children.
    """

    process: psutil.Popen
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text()

    @property
    def url(self) -> str:
        """The base URL; waits until it is printed."""
        return self.wait_for_output(r"http://[\d.:]+")

    def wait_for_output(self, pattern: str) -> str:
        """Wait until the output matches a pattern, and return the match."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.text):
                return found[0]
            assert self.process.poll() is None, self.text
            time.sleep(0.05)
        raise AssertionError(self.text)

    def ready(self) -> "Server":
        """Wait until the server is ready."""
        self.wait_for_output("Ready after")
        return self

    def engine(self) -> list[psutil.Process]:
        """Return the processes of vLLM's engine and its workers."""
        return [child for child in self.children() if has_title(child, "EngineCore", "Worker")]

    def core(self) -> psutil.Process:
        """Return the process of vLLM's engine core; waits until it runs."""
        return self._wait_for_child("EngineCore")

    def worker(self) -> psutil.Process:
        """Return the process of vLLM's worker; waits until it runs."""
        return self._wait_for_child("Worker")

    def children(self) -> list[psutil.Process]:
        found: list[psutil.Process] = self.process.children(recursive=True)
        return found

    def _wait_for_child(self, title: str) -> psutil.Process:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for child in self.children():
                if has_title(child, title):
                    return child
            time.sleep(0.05)
        raise AssertionError(self.text)


@contextlib.contextmanager
def serve_process(
    folder: Path, *, code: str = "", env: Mapping[str, str] | None = None, port: int = 0
) -> Iterator[Server]:
    """Start a server, without waiting until it is ready.

    Args:
        folder: the folder for its log.
        code: Python code to run before it serves.
        env: additional environment variables.
        port: its port; 0 selects a free one.
    """
    log = folder / "log"
    variables = (
        os.environ | {"PYTHONPATH": str(Path.cwd()), "PYTHONUNBUFFERED": "1"} | dict(env or {})
    )
    with log.open("w") as out:
        process = psutil.Popen(
            [sys.executable, "-c", f"{code}\n{SERVE}", "serve", "--port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=variables,
            start_new_session=True,  # so that its process group can be signalled
        )
    try:
        yield Server(process, log)
    finally:
        if process.poll() is None:
            kill_process_tree(process.pid)
        process.wait()


@contextlib.contextmanager
def busy_cores(count: int = 2) -> Iterator[None]:
    """Keep some cores busy with other processes."""
    loops = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def has_title(process: psutil.Process, *names: str) -> bool:
    """Return whether vLLM gave the process one of these titles."""
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
    """Return the files in shared memory that these processes have mapped."""
    inodes = set()
    for process in processes:
        with contextlib.suppress(FileNotFoundError):
            lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
            inodes |= {int(line.split()[4]) for line in lines if f" {SHARED_MEMORY}/" in line}
    return {path for path in SHARED_MEMORY.iterdir() if path.stat().st_ino in inodes}


class Stream:
    """A long stream: when it began, and its last event."""

    def __init__(self, tokens: int = LONG_TOKENS) -> None:
        """Create a stream of so many thinking tokens; `read` sends the request."""
        self._request = {**LONG, "min_thinking_tokens": tokens, "max_thinking_tokens": tokens}
        self.begun = asyncio.Event()
        self.status = 0
        self.name = ""
        self.data: Any = None

    async def read(self, http: httpx.AsyncClient) -> None:
        """Read the stream to its end, and keep the last event."""
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
            self.begun.set()  # also after an error, so that a waiting test sees it


async def until_status(server: Server, http: httpx.AsyncClient, status: int) -> None:
    """Wait until `/ready` returns this status."""
    deadline = time.monotonic() + PATIENCE
    while (await http.get("/ready")).status_code != status:
        assert time.monotonic() < deadline, server.text
        await asyncio.sleep(0.05)


def until_gone(processes: list[psutil.Process]) -> None:
    """Wait until all processes have ended."""
    deadline = time.monotonic() + PATIENCE
    while not all(map(is_gone, processes)):
        assert time.monotonic() < deadline, processes
        time.sleep(0.05)


async def stop_cleanly(server: Server, segments: set[Path], start: int = 0) -> None:
    """Stop a server with SIGTERM, and check that no process, segment or complaint is left.

    Args:
        server: the server.
        segments: files in shared memory that must have been released.
        start: the position in the log from which it is searched for complaints.
    """
    children = server.children()
    segments = segments | shared_memory([child for child in children if has_title(child, "")])
    server.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0, server.text
    await asyncio.to_thread(until_gone, children)  # the one that reports leaks ends last
    output = server.text[start:]
    for complaint in ("Task cancelled", "leaked"):
        assert complaint not in output, output
    assert not {path for path in segments if path.exists()}
