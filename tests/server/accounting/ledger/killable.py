"""Gateways over a fake engine, each in a process that can be killed."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[4]
SERVER = """
import asyncio, random
import proctor.server.cli.main, proctor.server.accounting.ledger.lease, proctor.server.cli.serve
from proctor.server.engines.fake import FakeEngine, Script

proctor.server.accounting.ledger.lease.RENEW_SECONDS = 0.1

async def work(job, position):
    # Long enough to be killed in the middle.
    await asyncio.sleep(0.03 if job.sampling.max_tokens > 100 else random.random() * 0.004)

def script(job):
    long = job.sampling.max_tokens > 100
    return Script(("x" * (200 if long else random.Random(job.id).randint(1, 40)),), "yes")

proctor.server.cli.serve.load_engine = lambda settings: FakeEngine(script, before_token=work)
raise SystemExit(proctor.server.cli.main.main(["serve", "--port", "0", "--model", "fake"]))
"""


@dataclass
class Gateway:
    """One of the two gateways; its process changes when it is restarted.

    Attributes:
        code: what its process runs.
        url: its base URL.
        process: its process.
    """

    code: str = SERVER
    url: str = ""
    process: asyncio.subprocess.Process | None = None

    def send_signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def start(self, environment: dict[str, str]) -> None:
        self.process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", self.code, stdout=asyncio.subprocess.PIPE, env=environment
        )
        assert process.stdout is not None
        output = ""
        while "curl" not in output:
            line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
            assert line, "the server ended"
            output += line
        found = re.search(r"http://127\.0\.0\.1:\d+", output)
        assert found is not None
        self.url = found[0]

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.send_signal(signal.SIGCONT)
                self.send_signal(signal.SIGKILL)
            await self.process.wait()


@asynccontextmanager
async def two_gateways(
    environment: dict[str, str], code: str = SERVER
) -> AsyncIterator[list[Gateway]]:
    async with AsyncExitStack() as stack:
        both = [Gateway(code), Gateway(code)]
        for gateway in both:
            stack.push_async_callback(gateway.end)
            await gateway.start(environment)
        yield both


def ledger_environment(url: str) -> dict[str, str]:
    """Return the environment of a gateway with a ledger, whose default is no budget."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "src"))),
        "PROCTOR_LEDGER__URL": url,
        "PROCTOR_DEFAULT_TIER": "custom",
    }


async def until(holds_true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await holds_true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
