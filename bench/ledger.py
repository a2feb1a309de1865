"""The cost of the ledger: time of the event loop per row, and CPU time per request.

    .venv/bin/python -m bench.ledger

The first table has the time of the event loop's thread per row. The second has the
CPU time per request of the gateway with the scripted engine, including the client, in
this process and without a network, with the ledger on and off in turn; it has the
medians over the rounds, and the median of the ratios. An answer has 120 tokens. CPU
time is more reliable than throughput on a shared machine.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx

from proctor.server.accounting.ledger.records import LedgerRecord
from proctor.server.accounting.ledger.store import Store
from proctor.server.accounting.ledger.writer import BATCH_SIZE, Writer
from proctor.server.app import create_app
from proctor.server.config.budgets import CUSTOM
from proctor.server.config.ledger import LedgerSettings
from proctor.server.config.prices import Prices
from proctor.server.config.settings import Settings
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.pricing import Cost
from proctor.server.storage.database import connect

AMOUNT = Decimal("0.000123")


def row(number: int) -> LedgerRecord:
    return LedgerRecord(
        id=f"chatcmpl-{number:032x}",
        request_id=f"{number:032x}",
        time=datetime.now(UTC),
        key=None,
        model="fake",
        status=200,
        tier="medium",
        source="router",
        asked_min_tokens=0,
        asked_max_tokens=2048,
        min_tokens=0,
        max_tokens=2048,
        clamped_by="",
        choices=1,
        prompt_tokens=500,
        cached_tokens=256,
        thinking_tokens=700,
        forced_tokens=0,
        answer_tokens=200,
        completion_tokens=903,
        continuations=0,
        end_reason="natural",
        finish_reason="stop",
        first_reasoning_seconds=0.2,
        first_answer_seconds=2.5,
        seconds=3.0,
        cost=Cost("USD", AMOUNT, AMOUNT, AMOUNT),
    )


async def costs(url: str, rounds: int) -> tuple[float, float, float]:
    """Return the microseconds per row: of `put`, of the event loop, and until it is written."""
    store = Store(connect(url))
    await store.migrate()
    rows = [row(number) for number in range(rounds * BATCH_SIZE)]
    writer = Writer(store)
    began = time.perf_counter()
    for each in rows:
        writer.put(each)
    put = time.perf_counter() - began
    began, used = time.perf_counter(), time.thread_time()
    writer.start()
    await writer.flush()
    used, elapsed = time.thread_time() - used, time.perf_counter() - began
    await writer.aclose()
    await store.aclose()
    return (1e6 * put / len(rows), 1e6 * used / len(rows), 1e6 * elapsed / len(rows))


async def cpu(ledger: str, requests: int, streams: int) -> float:
    """Return the microseconds of this process's CPU time per request."""
    settings = Settings(
        default_tier=CUSTOM,
        ledger=LedgerSettings.model_validate({"url": ledger}),
        prices=Prices(prompt=Decimal(1), thinking=Decimal(2), answer=Decimal(2)),
    )
    engine = FakeEngine(Script(("a" * 100,), "b" * 20))
    app = create_app(settings, lambda: engine)
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with app.router.lifespan_context(app):
        await app.state.supervisor.loaded()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://bench") as http:

            async def work(numbers: Iterator[int]) -> None:
                for _ in numbers:
                    (await http.post("/v1/chat/completions", json=body)).raise_for_status()

            async def load(count: int) -> None:
                numbers = iter(range(count))
                await asyncio.gather(*(work(numbers) for _ in range(streams)))

            await load(streams)
            began = time.process_time()
            await load(requests)
            return 1e6 * (time.process_time() - began) / requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--url", help="URL of the ledger to fill (default: SQLite in a temporary folder)"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--streams", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = options.url or f"sqlite:///{Path(folder) / 'ledger.db'}"
        put, used, elapsed = asyncio.run(costs(url, 50))
        print("| µs per row | put | event loop | until written |\n|---|--:|--:|--:|")
        print(f"| {url.split(':')[0]} | {put:.2f} | {used:.1f} | {elapsed:.0f} |\n")
        on, off = [], []
        for _ in range(options.rounds):
            on.append(asyncio.run(cpu(url, options.requests, options.streams)))
            off.append(asyncio.run(cpu("", options.requests, options.streams)))
        ratio = statistics.median(one / other for one, other in zip(on, off, strict=True))
        print("| µs of CPU per request, on | off | ratio |\n|--:|--:|--:|")
        print(f"| {statistics.median(on):.0f} | {statistics.median(off):.0f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
