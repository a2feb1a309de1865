"""Memory of the gateway and of its engine over many requests.

    .venv/bin/python -m bench.memory --requests 10000

Starts `proctor serve` with a ledger. Each request has a different prompt, so that caches cannot
hide a leak, a few tokens of thinking and a short answer.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import aiohttp
import psutil

from bench.soak import MODEL, PATIENCE_SECONDS, served, until_ready

CONCURRENCY = 16
POINTS = 10


async def send(session: aiohttp.ClientSession, number: int) -> None:
    """Send one request; every second one is streamed."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Start with {number}, add {number % 7}."}],
        "max_thinking_tokens": 2,
        "max_tokens": 20,
        "stream": bool(number % 2),
    }
    async with session.post("/v1/chat/completions", json=body) as response:
        content = await response.read()
        if response.status != 200:
            raise RuntimeError(content.decode())


def sizes(process: psutil.Process) -> str:
    """Format the MiB of the gateway, and of all processes of its engine."""
    engine = sum(child.memory_info().rss for child in process.children(recursive=True))
    return f"{process.memory_info().rss / 2**20:,.0f} | {engine / 2**20:,.0f}"


async def measure(requests: int) -> None:
    """Send the requests, and print the memory at intervals."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            served(Path(folder) / "ledger.db") as (process, url),
            aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(PATIENCE_SECONDS)) as session,
        ):
            await until_ready(session)
            watched = psutil.Process(process.pid)
            print("requests | gateway, MiB | engine, MiB")
            numbers = iter(range(requests))
            print(f"0 | {sizes(watched)}", flush=True)
            began = time.monotonic()

            async def work() -> None:
                for number in numbers:
                    await send(session, number)
                    if (number + 1) % (requests // POINTS) == 0:
                        print(f"{number + 1} | {sizes(watched)}", flush=True)

            await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
            print(f"{requests / (time.monotonic() - began):.0f} requests/s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    asyncio.run(measure(parser.parse_args().requests))


if __name__ == "__main__":
    main()
