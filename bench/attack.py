"""The effect of abusive requests on other clients, one kind at a time.

    .venv/bin/proctor serve --port 8000
    .venv/bin/python -m bench.attack --url http://127.0.0.1:8000

Normal clients run all the time: plain streams, one client that repeats requests for a
`json_object`, and one whose requests each have a new JSON schema. Meanwhile each request of
`tests/hostile_constraints.py`, and a few attacks without constraints, is sent by a client that
disconnects after some seconds. The table shows the outcome of each attack, the longest gap in a
stream (from its request on), and the longest latency of a JSON response. Verdicts on grammars are
cached, so each run needs a newly started server.
"""

import argparse
import asyncio
import contextlib
import functools
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
MESSAGES = [{"role": "user", "content": "Start with 7, add 5, times 3."}]
SETTLING_SECONDS = 0.5
LARGE_BODY = 40 * 2**20
OPEN_BODIES = 150
UNREAD = 50
CONCURRENT = 8


@dataclass
class Latencies:
    """The latencies that the normal clients measured, in seconds.

    Attributes:
        gaps: before each event of a stream.
        json_object: of responses to requests for a `json_object`.
        new_schema: of responses to requests with a new schema.
    """

    gaps: list[float] = field(default_factory=list)
    json_object: list[float] = field(default_factory=list)
    new_schema: list[float] = field(default_factory=list)

    def longest(self) -> tuple[float, float, float]:
        """Return the longest of each kind."""
        latencies = (self.gaps, self.json_object, self.new_schema)
        gap, json_object, new_schema = (max(each, default=0.0) for each in latencies)
        return gap, json_object, new_schema


Attack = Callable[[], Awaitable[str]]
"""Runs an attack and returns its outcome."""


class Bench:
    """Runs normal clients and attacks against a server."""

    def __init__(self, http: aiohttp.ClientSession, url: str, patience: float) -> None:
        self._http = http
        self._base = url
        self._patience = patience
        self._schema_numbers = itertools.count()
        self.latencies = Latencies()

    @contextlib.asynccontextmanager
    async def normal_clients(self, streams: int) -> AsyncIterator[None]:
        """Run the normal clients within the context."""
        clients = [self._stream() for _ in range(streams)]
        clients += [self._json(any_object=True), self._json(any_object=False)]
        tasks = [asyncio.create_task(each) for each in clients]
        try:
            yield
        finally:
            ended = [task for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in ended:
                task.result()

    async def measure(self, attack: Attack) -> tuple[str, Latencies]:
        """Run an attack; return its outcome, and the latencies of the normal clients."""
        self.latencies = Latencies()
        outcome = await attack()
        await asyncio.sleep(SETTLING_SECONDS)
        return outcome, self.latencies

    async def send(self, *requests: Mapping[str, Any]) -> str:
        """Send requests concurrently, disconnect if they take too long, and return the statuses."""
        counts = Counter(await asyncio.gather(*map(self._status, requests)))
        if len(requests) == 1:
            return next(iter(counts))
        return ", ".join(f"{count} x {status}" for status, count in counts.items())

    async def send_large_body(self, body: bytes) -> str:
        """Send a body, and return the status or the error."""
        try:
            async with self._http.post(self._base + CHAT, data=body) as response:
                return str(response.status)
        except aiohttp.ClientError as error:
            return type(error).__name__

    async def hold_bodies_open(self) -> str:
        """Send many requests whose bodies are never completed."""
        return await self._hold_connections(
            OPEN_BODIES, b'{"model": "proctor-demo", ', missing_bytes=1000
        )

    async def read_nothing(self) -> str:
        """Request many streams without reading them."""
        return await self._hold_connections(UNREAD, json.dumps(self._body(stream=True)).encode())

    async def _hold_connections(self, count: int, body: bytes, missing_bytes: int = 0) -> str:
        address = urlsplit(self._base)
        head = (
            f"POST {CHAT} HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body) + missing_bytes}\r\n\r\n"
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
        began = time.perf_counter()
        timeout = aiohttp.ClientTimeout(total=self._patience)
        body = self._body(max_tokens=200, **fields)
        try:
            async with self._http.post(self._base + CHAT, json=body, timeout=timeout) as response:
                await response.read()
        except TimeoutError:
            return f"left after {self._patience:g} s"
        return f"{response.status} after {time.perf_counter() - began:.1f} s"

    async def _stream(self) -> None:
        while True:
            body = self._body(stream=True, max_tokens=400)
            before = time.perf_counter()
            async with self._http.post(self._base + CHAT, json=body) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        now = time.perf_counter()
                        self.latencies.gaps.append(now - before)
                        before = now

    async def _json(self, *, any_object: bool) -> None:
        while True:
            response_format: dict[str, Any] = {"type": "json_object"}
            if not any_object:
                member = f"new_{next(self._schema_numbers)}_{time.time_ns()}"
                schema = {"type": "object", "properties": {member: {"type": "integer"}}}
                response_format = {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": schema},
                }
            began = time.perf_counter()
            body = self._body(response_format=response_format, max_tokens=24)
            async with self._http.post(self._base + CHAT, json=body) as response:
                content = json.loads(await response.read())
                if response.status != 200:
                    raise RuntimeError(content)
            seconds = time.perf_counter() - began
            kind = self.latencies.json_object if any_object else self.latencies.new_schema
            kind.append(seconds)
            await asyncio.sleep(0.1)

    @staticmethod
    def _body(**fields: Any) -> dict[str, Any]:
        return {"model": "proctor-demo", "messages": MESSAGES, "max_thinking_tokens": 0, **fields}


def large_schema(number: int) -> dict[str, Any]:
    """Return a schema whose grammar is expensive to compile, a different one for each number."""
    bounds = {"minProperties": 99 - number, "maxProperties": 150}
    return outputs(json={**TWO_HUNDRED, **bounds})


def attacks(bench: Bench) -> Iterator[tuple[str, Attack]]:
    """Yield all attacks with their names."""
    for name, fields in HOSTILE.items():
        yield name, functools.partial(bench.send, fields)
    schemas = [large_schema(number) for number in range(CONCURRENT)]
    yield f"{CONCURRENT} times 200 counted members", functools.partial(bench.send, *schemas)
    large = b" " * LARGE_BODY
    yield f"a body of {LARGE_BODY >> 20} MB", functools.partial(bench.send_large_body, large)
    yield f"{OPEN_BODIES} incomplete bodies", bench.hold_bodies_open
    yield f"{UNREAD} unread streams", bench.read_nothing


def row(name: str, outcome: str, longest: tuple[float, float, float]) -> str:
    gap, json_object, new_schema = longest
    return f"{name:36} {outcome:24} {gap:7.2f} {json_object:11.2f} {new_schema:10.2f}"


async def run(url: str, seconds: float, patience: float, streams: int, only: str) -> None:
    limits = aiohttp.TCPConnector(limit=0, force_close=True)
    forever = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=limits, timeout=forever) as http:
        bench = Bench(http, url, patience)
        async with bench.normal_clients(streams):
            await asyncio.sleep(3)
            print(f"{'':36} {'':24} {'gap, s':>7} {'json_object':>11} {'new schema':>10}")

            async def no_attack() -> str:
                await asyncio.sleep(seconds)
                return ""

            _, latencies = await bench.measure(no_attack)
            print(row("no attack", "", latencies.longest()), flush=True)
            worst = (0.0, 0.0, 0.0)
            for name, attack in attacks(bench):
                if only not in name:
                    continue
                outcome, latencies = await bench.measure(attack)
                longest = latencies.longest()
                gap, json_object, new_schema = map(max, zip(worst, longest, strict=True))
                worst = (gap, json_object, new_schema)
                print(row(name, outcome, longest), flush=True)
            print(row("worst", "", worst))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--seconds", type=float, default=10, help="duration of the baseline")
    parser.add_argument(
        "--patience",
        type=float,
        default=5,
        help="seconds after which an attacking client disconnects",
    )
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--only", default="", help="run only attacks whose name contains this")
    options = parser.parse_args()
    url = options.url.rstrip("/")
    asyncio.run(run(url, options.seconds, options.patience, options.streams, options.only))


if __name__ == "__main__":
    main()
