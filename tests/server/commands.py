"""`proctor serve` over a fake engine, in a process of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WITH_A_FAKE = """
import asyncio
import time
import proctor.server.cli.main
import proctor.server.cli.serve
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.engines.processes.engine_processes import SHUTTING_DOWN
proctor.server.cli.serve.load_engine = lambda settings: {engine}
raise SystemExit(proctor.server.cli.main.main(["serve", "--port", "0", "--model", "fake"]))
"""


@contextmanager
def serving(
    engine: str, settings: Mapping[str, object] | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """A server, which may not be ready yet.

    Args:
        engine: makes its engine, in Python.
        settings: by their names in the environment, without their prefix.
    """
    command = [sys.executable, "-c", WITH_A_FAKE.format(engine=engine)]
    told = {f"PROCTOR_{name}": str(value) for name, value in (settings or {}).items()}
    environment = {**os.environ, **told, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: "subprocess.Popen[str]", pattern: str) -> str:
    """What matches the pattern in what the server says, once it has."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(pattern, line):
            return found[0]
    raise AssertionError(f"no {pattern!r} was said")


def ready(process: "subprocess.Popen[str]") -> str:
    """The URL of a server, once it is ready."""
    url = read_until(process, r"http://127\.0\.0\.1:\d+")
    read_until(process, "curl")
    return url
