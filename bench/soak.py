"""A server under everything at once, for minutes: is anything lost, and is every budget kept?

    .venv/bin/python -m bench.soak --minutes 10 --streams 64

Starts `proctor serve` with a ledger, and keeps it under mixed tiers and budgets, streamed and not,
with clients that leave and input that is wrong; half-way it kills the engine. An answer is lost if
it ends in neither a whole answer nor an error, a row if a request that its client saw end is not
in the ledger, a budget is broken if the thinking is not within what was asked for.
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
BAD: tuple[dict[str, Any], ...] = (
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
"""Of a stream after a 429 or a 503."""


class Tally:
    """What happened.

    Attributes:
        counts: how often, by name.
        ended: ids of the answers that came whole, or with an error.
        tokens: generated in answers that came whole.
    """

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.ended: set[str] = set()
        self.tokens = 0
        self.faults: list[str] = []

    def lose(self, what: str, why: object) -> None:
        """Note a fault, with the first few reasons."""
        self.counts[what] += 1
        if len(self.faults) < 20:
            self.faults.append(f"{what}: {why}")


@contextlib.asynccontextmanager
async def served(ledger: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A server of the demo model, and its URL."""
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
        if found := re.search(rb"http://127\.0\.0\.1:\d+", line):
            break
    url = found[0].decode() if found else ""
    try:
        yield process, url
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until_ready(session: aiohttp.ClientSession) -> float:
    """Seconds until the server can answer."""
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE_SECONDS:
        async with session.get("/ready") as answer:
            if answer.status == 200:
                return time.monotonic() - began
        await asyncio.sleep(PAUSE_SECONDS)
    raise TimeoutError("the server did not become ready")


class Stream:
    """One client that asks for one thing after another."""

    def __init__(self, number: int, session: aiohttp.ClientSession, tally: Tally) -> None:
        self._chance = random.Random(number)
        self._session = session
        self._tally = tally

    async def run(self, until: float) -> None:
        """Ask until the time is over."""
        while time.monotonic() < until:
            kind = self._chance.random()
            try:
                if kind < 0.1:
                    await self._ask_badly()
                elif kind < 0.2:
                    await self._leave()
                elif kind < 0.3:
                    await self._ask_whole()
                else:
                    await self._ask()
            except (aiohttp.ClientError, OSError, ValueError) as error:
                self._tally.lose("answers lost", repr(error))

    def _body(self, **more: Any) -> dict[str, Any]:
        chance = self._chance
        steps = ", ".join(
            f"{chance.choice(('add', 'times', 'minus'))} {chance.randint(1, 9)}"
            for _ in range(chance.randint(1, 8))
        )
        asked: dict[str, Any] = {
            "model": MODEL,
            "messages": [
                {
                    "role": "user",
                    "content": f"Start with {chance.randint(1, 9)}, {steps}. "
                    "What are the last two digits?",
                }
            ],
            "temperature": chance.choice((0.0, 0.6)),
            "max_tokens": 400,
        }
        budget = chance.random()
        if budget < 0.4:
            asked["budget_tier"] = chance.choice(TIERS)
        else:
            most = chance.randint(0, 200)
            asked["max_thinking_tokens"] = most
            if budget < 0.7 and most:
                asked["min_thinking_tokens"] = chance.randint(1, most)
            if budget > 0.85 and most:
                asked["thinking"] = {"continuations": chance.randint(0, 3)}
        return asked | more

    async def _ask_badly(self) -> None:
        bad = self._chance.choice(BAD)
        async with self._session.post("/v1/chat/completions", json=self._body(**bad)) as answer:
            told = await answer.json()
            if answer.status in (429, 503):
                await self._wait(answer.status)
            elif 400 <= answer.status < 500 and told["error"]["message"]:
                self._tally.counts["bad requests refused"] += 1
            else:
                self._tally.lose("bad requests not refused", (answer.status, bad))

    async def _ask_whole(self) -> None:
        asked = self._body()
        async with self._session.post("/v1/chat/completions", json=asked) as answer:
            told = await answer.json()
            if answer.status in (429, 503):
                await self._wait(answer.status)
            elif answer.status == 200:
                self._end(told["id"], told["choices"][0]["thinking"], asked, told["usage"])
            else:
                self._tally.lose("answers lost", (answer.status, told))

    async def _leave(self) -> None:
        patience = self._chance.randint(0, 60)
        async with self._session.post(
            "/v1/chat/completions", json=self._body(stream=True)
        ) as answer:
            async for _ in answer.content:
                patience -= 1
                if patience < 0:
                    self._tally.counts["clients that left"] += 1
                    return

    async def _ask(self) -> None:
        asked = self._body(stream=True, stream_options={"include_usage": True})
        async with self._session.post("/v1/chat/completions", json=asked) as answer:
            if answer.status in (429, 503):
                await self._wait(answer.status)
            elif answer.status == 200:
                await self._read(answer, asked)
            else:
                self._tally.lose("answers lost", (answer.status, await answer.text()))

    async def _read(self, answer: aiohttp.ClientResponse, asked: dict[str, Any]) -> None:
        name, thinking, usage, done = "", None, None, False
        async for line in answer.content:
            if not line.startswith(b"data: "):
                continue
            if line == b"data: [DONE]\n":
                done = True
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                self._tally.counts["streams that ended with an error"] += 1
                if name:
                    self._tally.ended.add(name)
                return
            name, usage = chunk["id"], chunk.get("usage") or usage
            for choice in chunk["choices"]:
                thinking = choice.get("thinking") or thinking
        if done and thinking is not None and usage is not None:
            self._end(name, thinking, asked, usage)
        else:
            self._tally.lose("answers lost", f"{name} broke off")

    def _end(
        self, name: str, thinking: dict[str, Any], asked: dict[str, Any], usage: dict[str, Any]
    ) -> None:
        tally = self._tally
        tally.ended.add(name)
        tally.counts["answers"] += 1
        tally.tokens += usage["completion_tokens"]
        most = asked.get("max_thinking_tokens", thinking["max_tokens"])
        least = asked.get("min_thinking_tokens", 0)
        natural = thinking["end_reason"] not in ("loop", "length")
        if (most is not None and thinking["tokens"] > most) or (
            natural and thinking["tokens"] < least
        ):
            tally.lose("budgets broken", (asked, thinking))

    async def _wait(self, status: int) -> None:
        self._tally.counts[f"requests told {status}"] += 1
        await asyncio.sleep(PAUSE_SECONDS)


async def kill_engine(process: asyncio.subprocess.Process, session: aiohttp.ClientSession) -> float:
    """Kill the engine; seconds until the server answers again."""
    for child in psutil.Process(process.pid).children(recursive=True):
        if "EngineCore" in child.name() or "EngineCore" in " ".join(child.cmdline()):
            child.send_signal(signal.SIGKILL)
    while True:  # it has to be noticed first
        async with session.get("/ready") as answer:
            if answer.status != 200:
                break
        await asyncio.sleep(PAUSE_SECONDS)
    return await until_ready(session)


async def watch(process: asyncio.subprocess.Process, began: float, sizes: list[str]) -> None:
    """Note the gateway's memory once a minute."""
    gateway = psutil.Process(process.pid)
    for minute in itertools.count():
        await asyncio.sleep(max(0.0, began + 60 * minute - time.monotonic()))
        sizes.append(f"{gateway.memory_info().rss / 2**20:.0f}")


def missing_rows(ledger: Path, ended: set[str]) -> int:
    """How many of these requests are not in the ledger."""
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        found = {name for (name,) in database.execute("SELECT id FROM requests")}
    return len(ended - found)


async def soak(minutes: float, streams: int) -> bool:
    """Run, and print what came of it; whether nothing was lost."""
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
            until = began + 60 * minutes
            watching = asyncio.create_task(watch(process, began, sizes))
            load = asyncio.gather(
                *(Stream(number, session, tally).run(until) for number in range(streams))
            )
            await asyncio.sleep(30 * minutes)
            away = await kill_engine(process, session)
            await load
            seconds = time.monotonic() - began
            watching.cancel()
            process.terminate()
            status = await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
        lost = missing_rows(ledger, tally.ended)
    counts = tally.counts
    print(f"{streams} streams for {seconds / 60:.1f} minutes")
    print(f"{counts['answers']} answers, {tally.tokens / seconds:.0f} tokens/s of whole answers")
    for name in sorted(set(counts) - {"answers", "answers lost", "budgets broken"}):
        print(f"{counts[name]} {name}")
    print(f"engine killed: answers again after {away:.0f} s; server ended with {status}")
    print(f"memory of the gateway, MiB, minute by minute: {' '.join(sizes)}")
    print(
        f"answers lost: {counts['answers lost']}, rows lost: {lost}, "
        f"budgets broken: {counts['budgets broken']}"
    )
    print(*tally.faults, sep="\n")
    return not (counts["answers lost"] or lost or counts["budgets broken"] or status)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--streams", type=int, default=64)
    given = parser.parse_args()
    raise SystemExit(0 if asyncio.run(soak(given.minutes, given.streams)) else 1)


if __name__ == "__main__":
    main()
