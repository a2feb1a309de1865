"""What hostile requests do to everybody else, one after the other.

    .venv/bin/proctor serve --port 8000
    .venv/bin/python -m bench.attack --url http://127.0.0.1:8000

Plain streams run all the time; one client asks for a `json_object` again and again, another for
forms that were never seen before. Each hostile request of `tests/hostile_constraints.py`, and a
few that are no constraints, comes beside them, from a client that leaves after some seconds. Told
are what became of it, the longest silence of a stream, from its request on, and the longest time
until JSON was there. What is found out of a grammar is kept: a second run wants a new server.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from tests.hostile_constraints import HOSTILE, TWO_HUNDRED, outputs

CHAT = "/v1/chat/completions"
ASK = [{"role": "user", "content": "Start with 7, add 5, times 3."}]
SETTLING_SECONDS = 0.5
LARGE_BODY = 40 * 2**20
OPEN_BODIES = 150
UNREAD = 50
AT_ONCE = 8


@dataclass
class Seen:
    """What the others saw, in seconds.

    Attributes:
        silences: of streams, before each event.
        any_json: until an answer to `json_object` was there.
        new_json: the same of a form that was never seen before.
    """

    silences: list[float] = field(default_factory=list)
    any_json: list[float] = field(default_factory=list)
    new_json: list[float] = field(default_factory=list)

    def longest(self) -> tuple[float, float, float]:
        """The longest of each."""
        times = (self.silences, self.any_json, self.new_json)
        silence, any_json, new_json = (max(each, default=0.0) for each in times)
        return silence, any_json, new_json


Attack = Callable[[], Awaitable[str]]
"""Does something hostile; what became of it."""


class Bench:
    """One run against a server."""

    def __init__(self, http: aiohttp.ClientSession, url: str, patience: float) -> None:
        self._http = http
        self._base = url
        self._patience = patience
        self._fresh = itertools.count()
        self.seen = Seen()

    @contextlib.asynccontextmanager
    async def others(self, streams: int) -> AsyncIterator[None]:
        """Those who want nothing odd, for as long as this is open."""
        work = [self._stream() for _ in range(streams)]
        work += [self._json(any_object=True), self._json(any_object=False)]
        tasks = [asyncio.create_task(each) for each in work]
        try:
            yield
        finally:
            ended = [task for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in ended:
                task.result()

    async def beside(self, attack: Attack) -> tuple[str, Seen]:
        """What becomes of an attack, and what the others see meanwhile."""
        self.seen = Seen()
        became = await attack()
        await asyncio.sleep(SETTLING_SECONDS)
        return became, self.seen

    async def ask(self, *many: Mapping[str, Any]) -> str:
        """Send requests at once, and leave if that takes too long; their statuses."""
        counts = Counter(await asyncio.gather(*map(self._status, many)))
        if len(many) == 1:
            return next(iter(counts))
        return ", ".join(f"{count} x {status}" for status, count in counts.items())

    async def send_much(self, body: bytes) -> str:
        """A body that is too large."""
        try:
            async with self._http.post(self._base + CHAT, data=body) as response:
                return str(response.status)
        except aiohttp.ClientError as error:
            return type(error).__name__

    async def hold_bodies_open(self) -> str:
        """Many requests whose bodies do not come to an end."""
        return await self._reserve(OPEN_BODIES, b'{"model": "proctor-demo", ', more=1000)

    async def read_nothing(self) -> str:
        """Many streams that nobody reads."""
        return await self._reserve(UNREAD, json.dumps(self._body(stream=True)).encode())

    async def _reserve(self, count: int, body: bytes, more: int = 0) -> str:
        address = urlsplit(self._base)
        head = (
            f"POST {CHAT} HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body) + more}\r\n\r\n"
        )
        writers = []
        for _ in range(count):
            _, writer = await asyncio.open_connection(address.hostname, address.port, limit=1)
            writer.write(head.encode() + body)
            writers.append(writer)
        await asyncio.sleep(self._patience)
        for writer in writers:
            writer.transport.abort()
        return f"{count} held"

    async def _status(self, fields: Mapping[str, Any]) -> str:
        begun = time.perf_counter()
        patience = aiohttp.ClientTimeout(total=self._patience)
        body = self._body(max_tokens=200, **fields)
        try:
            async with self._http.post(self._base + CHAT, json=body, timeout=patience) as response:
                await response.read()
        except TimeoutError:
            return f"left after {self._patience:g} s"
        return f"{response.status} after {time.perf_counter() - begun:.1f} s"

    async def _stream(self) -> None:
        while True:
            body = self._body(stream=True, max_tokens=400)
            before = time.perf_counter()
            async with self._http.post(self._base + CHAT, json=body) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        now = time.perf_counter()
                        self.seen.silences.append(now - before)
                        before = now

    async def _json(self, *, any_object: bool) -> None:
        while True:
            form: dict[str, Any] = {"type": "json_object"}
            if not any_object:
                member = f"fresh_{next(self._fresh)}_{time.time_ns()}"
                schema = {"type": "object", "properties": {member: {"type": "integer"}}}
                form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
            begun = time.perf_counter()
            body = self._body(response_format=form, max_tokens=24)
            async with self._http.post(self._base + CHAT, json=body) as response:
                told = json.loads(await response.read())
                if response.status != 200:
                    raise RuntimeError(told)
            times = self.seen.any_json if any_object else self.seen.new_json
            times.append(time.perf_counter() - begun)
            await asyncio.sleep(0.1)

    @staticmethod
    def _body(**more: Any) -> dict[str, Any]:
        return {"model": "proctor-demo", "messages": ASK, "max_thinking_tokens": 0, **more}


def counted(number: int) -> dict[str, Any]:
    """A large schema to make a grammar of, another for each number."""
    bounds = {"minProperties": 99 - number, "maxProperties": 150}
    return outputs(json={**TWO_HUNDRED, **bounds})


def attacks(bench: Bench) -> Iterator[tuple[str, Attack]]:
    """All of them, by name."""
    for name, fields in HOSTILE.items():
        yield name, lambda fields=fields: bench.ask(fields)
    many = [counted(number) for number in range(AT_ONCE)]
    yield f"{AT_ONCE} times 200 counted members", lambda: bench.ask(*many)
    large = b" " * LARGE_BODY
    yield f"a body of {LARGE_BODY >> 20} MB", lambda: bench.send_much(large)
    yield f"{OPEN_BODIES} bodies without an end", bench.hold_bodies_open
    yield f"{UNREAD} streams that nobody reads", bench.read_nothing


def row(name: str, became: str, times: tuple[float, float, float]) -> str:
    silence, any_json, new_json = times
    return f"{name:36} {became:24} {silence:7.2f} {any_json:11.2f} {new_json:9.2f}"


async def run(url: str, seconds: float, patience: float, streams: int, only: str) -> None:
    limits = aiohttp.TCPConnector(limit=0, force_close=True)
    forever = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=limits, timeout=forever) as http:
        bench = Bench(http, url, patience)
        async with bench.others(streams):
            await asyncio.sleep(3)
            print(f"{'':36} {'':24} {'silence':>7} {'json_object':>11} {'new form':>9}")

            async def nothing() -> str:
                await asyncio.sleep(seconds)
                return ""

            _, seen = await bench.beside(nothing)
            print(row("alone", "", seen.longest()), flush=True)
            worst = (0.0, 0.0, 0.0)
            for name, attack in attacks(bench):
                if only not in name:
                    continue
                became, seen = await bench.beside(attack)
                one, two, three = map(max, zip(worst, seen.longest(), strict=True))
                worst = (one, two, three)
                print(row(name, became, seen.longest()), flush=True)
            print(row("the worst of them", "", worst))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--seconds", type=float, default=10, help="to look at the others alone")
    parser.add_argument("--patience", type=float, default=5, help="seconds before a client leaves")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--only", default="", help="what the name of an attack has in it")
    given = parser.parse_args()
    url = given.url.rstrip("/")
    asyncio.run(run(url, given.seconds, given.patience, given.streams, given.only))


if __name__ == "__main__":
    main()
