"""`proctor replica` with the demo model in a process of its own, and gateways over it."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
from vllm.utils.system_utils import kill_process_tree

from proctor.server.config.settings import DEMO
from tests.engine.gateway import CACHE, START_SECONDS, Gateway, running_gateway
from tests.server.harness import free_port

COMMAND = "import sys; from proctor.server.cli.main import main; sys.exit(main())"
API_KEY = "between-gateway-and-replica"
FLAGS = (
    "--max-model-len=2048",
    "--max-num-seqs=64",
    "--enforce-eager",
    f"--kv-cache-memory-bytes={CACHE}",
    f"--api-key={API_KEY}",
)


@dataclass(frozen=True)
class Replica:
    """A running replica.

    Attributes:
        url: its base URL.
        process: its process.
        log: its output.
    """

    url: str
    process: psutil.Popen
    log: Path

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a gateway over this replica."""
        return engine_settings([self.url])


def engine_settings(urls: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a gateway over replicas."""
    return {
        "model": str(DEMO / "model"),
        "served_model_name": "proctor-demo",
        "tool_call_parser": "hermes",
        "engine": {"kind": "vllm", "urls": list(urls), "api_key": API_KEY},
    }


@contextlib.contextmanager
def starting_replica(
    folder: Path, *flags: str, port: int | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Replica]:
    """Start a replica, without waiting until it is ready.

    Args:
        folder: the folder for its log.
        flags: further flags of `vllm serve`.
        port: its port; None selects a free one.
        env: additional environment variables.
    """
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"replica-{port}.log"
    arguments = ["replica", f"--port={port}", "--host=127.0.0.1", *FLAGS, *flags]
    variables = os.environ | {"PYTHONUNBUFFERED": "1"} | dict(env or {})
    with log.open("a") as out:
        process = psutil.Popen(
            [sys.executable, "-c", COMMAND, *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=variables,
            start_new_session=True,
        )
    try:
        yield Replica(f"http://127.0.0.1:{port}", process, log)
    finally:
        kill_process_tree(process.pid)
        process.wait()


@contextlib.contextmanager
def running_replica(folder: Path, *flags: str, **options: Any) -> Iterator[Replica]:
    """Start a replica and wait until it is ready; see `starting_replica`."""
    with starting_replica(folder, *flags, **options) as replica:
        wait_until_ready(replica)
        yield replica


def wait_until_ready(replica: Replica) -> None:
    """Wait until a replica answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert replica.process.poll() is None, replica.log.read_text()[-4000:]
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{replica.url}/health").status_code == 200:
                return
        time.sleep(0.2)
    raise AssertionError(replica.log.read_text()[-4000:])


@contextlib.contextmanager
def gateway_over(replica: Replica, **overrides: Any) -> Iterator[Gateway]:
    """Serve the demo model over a replica."""
    with running_gateway(**replica.settings, **overrides) as gateway:
        yield replace(gateway, vllm_url=replica.url)
