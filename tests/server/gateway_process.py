"""A gateway over a fake engine in a separate process, whose memory can be measured."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.server.harness import with_timeout

ROOT = Path(__file__).parents[2]
SCRIPT = """
import asyncio, sys, uvloop
from proctor.server.engines.fake import FakeEngine, Script
from tests.server.harness import running_server

async def main():
    async with running_server(FakeEngine({arguments})) as url:
        print(url, flush=True)
        await asyncio.to_thread(sys.stdin.read)

uvloop.run(main())
"""


@dataclass(frozen=True)
class GatewayProcess:
    """A running server.

    Attributes:
        url: its base URL.
        process: the process that runs it.
    """

    url: str
    process: psutil.Process

    @property
    def resident_bytes(self) -> int:
        """The resident set size of the process."""
        size: int = self.process.memory_info().rss
        return size


@asynccontextmanager
async def gateway_process(arguments: str = "") -> AsyncIterator[GatewayProcess]:
    """Run a server in a separate process.

    Args:
        arguments: those of its `FakeEngine`, as Python source.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SCRIPT.format(arguments=arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = (await with_timeout(process.stdout.readline())).decode().strip()
        yield GatewayProcess(url, psutil.Process(process.pid))
    finally:
        process.stdin.close()
        await with_timeout(process.wait())
