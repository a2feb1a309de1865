"""A soak test: mixed load for minutes, and a check that nothing is lost and budgets are kept.

    .venv/bin/python -m bench.soak --minutes 10 --streams 64

Starts `proctor serve` with a ledger, and loads it with mixed tiers and budgets, streamed and not,
with clients that disconnect and invalid requests; half-way it kills the engine. An answer is lost
if it is neither completed nor ended by an error; a row is lost if a request whose end the client
received is not in the ledger; a budget is violated if the thinking is not within it.
"""

import argparse
import asyncio
import collections
import contextlib
import itertools
import json
import os
import random
import re
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil

MODEL = "proctor-demo"
TIERS = ("none", "low", "medium", "high", "max", "auto")
INVALID_FIELDS: tuple[dict[str, Any], ...] = (
    {"max_thinking_tokens": -5},
    {"messages": []},
    {"temperature": "hot"},
    {"logit_bias": {"99999999": 1}},
    {"budget_tier": "enormous"},
    {"structured_outputs": {"regex": "("}},
    {"n": 10**6},
    {"messages": [{"role": "user", "content": "x" * 300_000}]},
)
PATIENCE_SECONDS = 120
PAUSE_SECONDS = 0.2
"""Pause of a client after a 429 or a 503, and between polls of readiness."""


class Tally:
    """Counts of all outcomes.

    Attributes:
        counts: the number of each outcome, by name.
        ended: ids of the answers that were completed, or ended by an error.
        tokens: tokens of the completed answers.
        faults: descriptions of the first faults.
    """

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.ended: set[str] = set()
        self.tokens = 0
        self.faults: list[str] = []

    def add_fault(self, name: str, reason: object) -> None:
        """Count a fault; keep the reasons of the first 20."""
        self.counts[name] += 1
        if len(self.faults) < 20:
            self.faults.append(f"{name}: {reason}")


@contextlib.asynccontextmanager
async def served(ledger: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run a server of the demo model; yield its process and URL."""
    environment = {**os.environ, "PROCTOR_LEDGER__URL": f"sqlite:///{ledger}"}
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("proctor"),
        *("serve", "--port", "0"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    async for line in process.stdout:
        if match := re.search(rb"http://127\.0\.0\.1:\d+", line):
            break
    url = match[0].decode() if match else ""
    try:
        yield process, url
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until_ready(session: aiohttp.ClientSession) -> float:
    """Wait until the server is ready, and return the seconds."""
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE_SECONDS:
        async with session.get("/ready") as response:
            if response.status == 200:
                return time.monotonic() - began
        await asyncio.sleep(PAUSE_SECONDS)
    raise TimeoutError("the server did not become ready")


class Stream:
    """A client that sends one request after another."""

    def __init__(self, number: int, session: aiohttp.ClientSession, tally: Tally) -> None:
        self._random = random.Random(number)
        self._session = session
        self._tally = tally

    async def run(self, deadline: float) -> None:
        """Send requests until the deadline."""
        while time.monotonic() < deadline:
            kind = self._random.random()
            try:
                if kind < 0.1:
                    await self._send_invalid()
                elif kind < 0.2:
                    await self._disconnect()
                elif kind < 0.3:
                    await self._complete()
                else:
                    await self._stream()
            except (aiohttp.ClientError, OSError, ValueError) as error:
                self._tally.add_fault("answers lost", repr(error))

    def _body(self, **fields: Any) -> dict[str, Any]:
        rng = self._random
        steps = ", ".join(
            f"{rng.choice(('add', 'times', 'minus'))} {rng.randint(1, 9)}"
            for _ in range(rng.randint(1, 8))
        )
        body: dict[str, Any] = {
            "model": MODEL,
            "messages": [
                {
                    "role": "user",
                    "content": f"Start with {rng.randint(1, 9)}, {steps}. "
                    "What are the last two digits?",
                }
            ],
            "temperature": rng.choice((0.0, 0.6)),
            "max_tokens": 400,
        }
        budget = rng.random()
        if budget < 0.4:
            body["budget_tier"] = rng.choice(TIERS)
        else:
            maximum = rng.randint(0, 200)
            body["max_thinking_tokens"] = maximum
            if budget < 0.7 and maximum:
                body["min_thinking_tokens"] = rng.randint(1, maximum)
            if budget > 0.85 and maximum:
                body["thinking"] = {"continuations": rng.randint(0, 3)}
        return body | fields

    async def _send_invalid(self) -> None:
        invalid = self._random.choice(INVALID_FIELDS)
        body = self._body(**invalid)
        async with self._session.post("/v1/chat/completions", json=body) as response:
            content = await response.json()
            if response.status in (429, 503):
                await self._wait(response.status)
            elif 400 <= response.status < 500 and content["error"]["message"]:
                self._tally.counts["invalid requests rejected"] += 1
            else:
                self._tally.add_fault("invalid requests not rejected", (response.status, invalid))

    async def _complete(self) -> None:
        body = self._body()
        async with self._session.post("/v1/chat/completions", json=body) as response:
            content = await response.json()
            if response.status in (429, 503):
                await self._wait(response.status)
            elif response.status == 200:
                thinking = content["choices"][0]["thinking"]
                self._end(content["id"], thinking, body, content["usage"])
            else:
                self._tally.add_fault("answers lost", (response.status, content))

    async def _disconnect(self) -> None:
        remaining_lines = self._random.randint(0, 60)
        body = self._body(stream=True)
        async with self._session.post("/v1/chat/completions", json=body) as response:
            async for _ in response.content:
                remaining_lines -= 1
                if remaining_lines < 0:
                    self._tally.counts["clients that disconnected"] += 1
                    return

    async def _stream(self) -> None:
        body = self._body(stream=True, stream_options={"include_usage": True})
        async with self._session.post("/v1/chat/completions", json=body) as response:
            if response.status in (429, 503):
                await self._wait(response.status)
            elif response.status == 200:
                await self._read(response, body)
            else:
                self._tally.add_fault("answers lost", (response.status, await response.text()))

    async def _read(self, response: aiohttp.ClientResponse, body: dict[str, Any]) -> None:
        id_, thinking, usage, done = "", None, None, False
        async for line in response.content:
            if not line.startswith(b"data: "):
                continue
            if line == b"data: [DONE]\n":
                done = True
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                self._tally.counts["streams that ended with an error"] += 1
                if id_:
                    self._tally.ended.add(id_)
                return
            id_, usage = chunk["id"], chunk.get("usage") or usage
            for choice in chunk["choices"]:
                thinking = choice.get("thinking") or thinking
        if done and thinking is not None and usage is not None:
            self._end(id_, thinking, body, usage)
        else:
            self._tally.add_fault("answers lost", f"{id_} is incomplete")

    def _end(
        self, id_: str, thinking: dict[str, Any], body: dict[str, Any], usage: dict[str, Any]
    ) -> None:
        tally = self._tally
        tally.ended.add(id_)
        tally.counts["answers"] += 1
        tally.tokens += usage["completion_tokens"]
        maximum = body.get("max_thinking_tokens", thinking["max_tokens"])
        minimum = body.get("min_thinking_tokens", 0)
        minimum_applies = thinking["end_reason"] not in ("loop", "length")
        if (maximum is not None and thinking["tokens"] > maximum) or (
            minimum_applies and thinking["tokens"] < minimum
        ):
            tally.add_fault("budgets violated", (body, thinking))

    async def _wait(self, status: int) -> None:
        self._tally.counts[f"requests with status {status}"] += 1
        await asyncio.sleep(PAUSE_SECONDS)


async def kill_engine(process: asyncio.subprocess.Process, session: aiohttp.ClientSession) -> float:
    """Kill the engine, and return the seconds until the server is ready again."""
    for child in psutil.Process(process.pid).children(recursive=True):
        if "EngineCore" in child.name() or "EngineCore" in " ".join(child.cmdline()):
            child.send_signal(signal.SIGKILL)
    while True:  # until the server has noticed
        async with session.get("/ready") as response:
            if response.status != 200:
                break
        await asyncio.sleep(PAUSE_SECONDS)
    return await until_ready(session)


async def watch(process: asyncio.subprocess.Process, began: float, sizes: list[str]) -> None:
    """Record the gateway's memory once a minute."""
    gateway = psutil.Process(process.pid)
    for minute in itertools.count():
        await asyncio.sleep(max(0.0, began + 60 * minute - time.monotonic()))
        sizes.append(f"{gateway.memory_info().rss / 2**20:.0f}")


def missing_rows(ledger: Path, ended: set[str]) -> int:
    """Return the number of these requests that are not in the ledger."""
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        recorded = {id_ for (id_,) in database.execute("SELECT id FROM requests")}
    return len(ended - recorded)


async def soak(minutes: float, streams: int) -> bool:
    """Run the test, print the results, and return whether there was no fault."""
    tally, sizes = Tally(), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger.db"
        limits = aiohttp.TCPConnector(limit=0)
        async with (
            served(ledger) as (process, url),
            aiohttp.ClientSession(
                url, connector=limits, timeout=aiohttp.ClientTimeout(PATIENCE_SECONDS)
            ) as session,
        ):
            await until_ready(session)
            began = time.monotonic()
            deadline = began + 60 * minutes
            watching = asyncio.create_task(watch(process, began, sizes))
            load = asyncio.gather(
                *(Stream(number, session, tally).run(deadline) for number in range(streams))
            )
            await asyncio.sleep(30 * minutes)
            downtime = await kill_engine(process, session)
            await load
            seconds = time.monotonic() - began
            watching.cancel()
            process.terminate()
            status = await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
        rows_lost = missing_rows(ledger, tally.ended)
    counts = tally.counts
    print(f"{streams} streams for {seconds / 60:.1f} minutes")
    print(
        f"{counts['answers']} answers, {tally.tokens / seconds:.0f} tokens/s in completed answers"
    )
    for name in sorted(set(counts) - {"answers", "answers lost", "budgets violated"}):
        print(f"{counts[name]} {name}")
    print(f"engine killed: ready again after {downtime:.0f} s; server exited with {status}")
    print(f"memory of the gateway per minute, MiB: {' '.join(sizes)}")
    print(
        f"answers lost: {counts['answers lost']}, rows lost: {rows_lost}, "
        f"budgets violated: {counts['budgets violated']}"
    )
    print(*tally.faults, sep="\n")
    return not (counts["answers lost"] or rows_lost or counts["budgets violated"] or status)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--streams", type=int, default=64)
    options = parser.parse_args()
    raise SystemExit(0 if asyncio.run(soak(options.minutes, options.streams)) else 1)


if __name__ == "__main__":
    main()
