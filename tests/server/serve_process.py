"""`proctor serve` over a fake engine, in a separate process."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETUP = """
import asyncio
import os
import sys
import time
import proctor.server.cli.main
import proctor.server.cli.serve
import proctor.server.cli.workers.process
import proctor.server.cli.workers.worker
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.engines.processes.engine_processes import SHUTTING_DOWN
proctor.server.cli.serve.load_engine = lambda settings: {engine}
"""
SERVE = """
proctor.server.cli.workers.process.COMMAND = [sys.executable, "-c", {worker!r}]
raise SystemExit(proctor.server.cli.main.main(["serve", "--port", "{port}", "--model", "fake"]))
"""
WORK = "raise SystemExit(proctor.server.cli.workers.worker.main())"


@contextmanager
def serve_process(
    engine: str, settings: Mapping[str, object] | None = None, port: int = 0
) -> Iterator["subprocess.Popen[str]"]:
    """Start a server, without waiting until it is ready.

    Args:
        engine: a Python expression for its engine.
        settings: environment variables, without their prefix.
        port: its port; 0 selects a free one.
    """
    setup = SETUP.format(engine=engine)
    command = [sys.executable, "-c", setup + SERVE.format(worker=setup + WORK, port=port)]
    variables = {f"PROCTOR_{name}": str(value) for name, value in (settings or {}).items()}
    environment = {**os.environ, **variables, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: "subprocess.Popen[str]", pattern: str) -> str:
    """Read the server's output up to a match of the pattern, and return the match."""
    assert process.stdout is not None
    for line in process.stdout:
        if match := re.search(pattern, line):
            return match[0]
    raise AssertionError(f"The output ended without {pattern!r}")


def wait_until_ready(process: "subprocess.Popen[str]") -> str:
    """Return the base URL of a server, once it is ready."""
    url = read_until(process, r"http://127\.0\.0\.1:\d+")
    read_until(process, "curl")
    return url
