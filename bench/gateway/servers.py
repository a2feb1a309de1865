"""Starts the servers that are compared, each in a process of its own."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.gateway.load import answers, request
from bench.gateway.measure import chat
from bench.gateway.serve import NAME
from proctor.replica.handshake import PATH

START_SECONDS = 300.0
PORT = "{port}"
CHAT = request(chat(1))
HANDSHAKE = f"GET {PATH} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
LITELLM = """\
model_list:
  - model_name: {name}
    litellm_params: {{model: openai/{name}, api_base: "{upstream}/v1", api_key: none}}
litellm_settings: {{telemetry: false}}
general_settings: {{dangerously_permit_weak_or_unset_master_key: true}}
"""


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        name: its name in the tables.
        port: where it listens.
        process: its process.
    """

    name: str
    port: int
    process: psutil.Popen


@contextlib.contextmanager
def running(name: str, litellm: str | None = None) -> Iterator[Server]:
    """Run a server, with the one behind it if there is one, until both answer.

    Args:
        name: `bytes`, `gateway`, `replicas`, `vllm` or `litellm`.
        litellm: the path of LiteLLM's command.
    """
    with contextlib.ExitStack() as stack:
        if name == "replicas":
            replica = stack.enter_context(_started("replica", _command("replica"), HANDSHAKE))
            upstream = f"http://127.0.0.1:{replica.port}"
            command = [*_command("gateway"), "--upstream", upstream]
        elif name == "litellm":
            source = stack.enter_context(_started("bytes", _command("bytes")))
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            config = folder / "litellm.yaml"
            config.write_text(LITELLM.format(name=NAME, upstream=f"http://127.0.0.1:{source.port}"))
            command = [litellm or "litellm", "--config", str(config), "--port", PORT]
        else:
            command = _command(name)
        yield stack.enter_context(_started(name, command))


def _command(kind: str) -> list[str]:
    return [sys.executable, "-m", "bench.gateway.serve", kind, PORT]


@contextlib.contextmanager
def _started(name: str, command: Sequence[str], probe: bytes = CHAT) -> Iterator[Server]:
    port = _free_port()
    process = psutil.Popen(
        [str(port) if part == PORT else part for part in command],
        env=os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        asyncio.run(_until_ready(port, probe, process))
        yield Server(name, port, process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


async def _until_ready(port: int, probe: bytes, process: psutil.Popen) -> None:
    """Wait until a server answers.

    Raises:
        RuntimeError: if it has ended.
        TimeoutError: if it does not answer within `START_SECONDS`.
    """
    async with asyncio.timeout(START_SECONDS):
        while not await answers(port, probe):
            if process.poll() is not None:
                raise RuntimeError(f"a server ended with status {process.returncode}")
            await asyncio.sleep(0.5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
