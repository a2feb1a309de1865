"""A gateway over a fake engine in a process of its own, whose memory can be looked at."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.server.harness import soon

ROOT = Path(__file__).parents[2]
SCRIPT = """
import asyncio, sys, uvloop
from proctor.server.engines.fake import FakeEngine, Script
from tests.server.harness import listening

async def main():
    async with listening(FakeEngine({engine})) as url:
        print(url, flush=True)
        await asyncio.to_thread(sys.stdin.read)

uvloop.run(main())
"""


@dataclass(frozen=True)
class Apart:
    """A running server.

    Attributes:
        url: where it listens.
        process: what runs it.
    """

    url: str
    process: psutil.Process

    @property
    def resident(self) -> int:
        """Bytes of memory that it has."""
        found: int = self.process.memory_info().rss
        return found


@asynccontextmanager
async def listening_apart(engine: str = "") -> AsyncIterator[Apart]:
    """A server whose engine is made with these arguments, written in Python."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SCRIPT.format(engine=engine),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = (await soon(process.stdout.readline())).decode().strip()
        yield Apart(url, psutil.Process(process.pid))
    finally:
        process.stdin.close()
        await soon(process.wait())
