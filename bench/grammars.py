"""What grammars that take long do to everybody else: other streams, and other grammars.

    .venv/bin/proctor serve --port 8000
    .venv/bin/python -m bench.grammars --url http://127.0.0.1:8000

Plain streams run all the time, and another client asks for JSON again and again. First they are
alone, then eight requests come whose schema is a large one to make a grammar of, from clients that
leave after 1.5 s; they come in several rounds, each time with other numbers. Told are the longest
pause between two events of a stream, and the times until JSON was there.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

PROPERTIES = 200
REQUESTS = 8
LEAVING_SECONDS = 1.5
ASK = [{"role": "user", "content": "Start with 7, add 5, times 3."}]


@dataclass
class Seen:
    """What the others saw.

    Attributes:
        pauses: seconds between two events of a stream.
        any_json: seconds until an answer to `json_object` was there.
        new_json: the same of schemas that were never seen before.
    """

    pauses: list[float] = field(default_factory=list)
    any_json: list[float] = field(default_factory=list)
    new_json: list[float] = field(default_factory=list)

    def told(self) -> str:
        shown = [f"longest pause of a stream {max(self.pauses, default=0):.2f} s"]
        for name, times in (("json_object", self.any_json), ("new schema", self.new_json)):
            if times:
                told = f"median {statistics.median(times):.2f} s, longest {max(times):.2f} s"
                shown.append(f"{name} {told} of {len(times)}")
        return "; ".join(shown)


class Bench:
    """One run against a server."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = f"{url}/v1/chat/completions"
        self._fresh = itertools.count()
        self.seen = Seen()

    async def phase(self, seconds: float, rounds: int, streams: int) -> Seen:
        """What is seen in so many seconds, with so many rounds of hostile requests."""
        self.seen = Seen()
        others = [self._stream() for _ in range(streams)]
        others += [self._json(any_object=True), self._json(any_object=False)]
        tasks = [asyncio.create_task(other) for other in others]
        await asyncio.sleep(1)
        for number in range(rounds):
            await asyncio.gather(*(self._attack(number * REQUESTS + k) for k in range(REQUESTS)))
        await asyncio.sleep(seconds)
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in ended:
            task.result()
        return self.seen

    async def _attack(self, k: int) -> None:
        properties = {f"p{i}": {"type": "integer"} for i in range(PROPERTIES)}
        schema = {
            "type": "object",
            "properties": properties,
            "minProperties": PROPERTIES // 2 - k,
            "maxProperties": 3 * PROPERTIES // 4,
        }
        body = self._body(structured_outputs={"json": schema})
        patience = aiohttp.ClientTimeout(total=LEAVING_SECONDS)
        try:
            async with self._http.post(self._url, json=body, timeout=patience) as response:
                await response.read()
        except TimeoutError:
            pass

    async def _stream(self) -> None:
        while True:
            body = self._body(stream=True, max_tokens=400)
            async with self._http.post(self._url, json=body) as response:
                before = None
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        now = time.perf_counter()
                        if before is not None:
                            self.seen.pauses.append(now - before)
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
            async with self._http.post(self._url, json=body) as response:
                told = json.loads(await response.read())
                if response.status != 200:
                    raise RuntimeError(told)
            times = self.seen.any_json if any_object else self.seen.new_json
            times.append(time.perf_counter() - begun)
            await asyncio.sleep(0.2)

    @staticmethod
    def _body(**more: Any) -> dict[str, Any]:
        return {"model": "proctor-demo", "messages": ASK, "max_thinking_tokens": 0, **more}


async def run(url: str, seconds: float, rounds: int, streams: int) -> None:
    limits = aiohttp.TCPConnector(limit=0, force_close=True)
    patience = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=limits, timeout=patience) as http:
        bench = Bench(http, url)
        await bench.phase(3, 0, streams)
        print("alone:  ", (await bench.phase(seconds, 0, streams)).told())
        print("beside: ", (await bench.phase(seconds, rounds, streams)).told())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=4)
    given = parser.parse_args()
    asyncio.run(run(given.url.rstrip("/"), given.seconds, given.rounds, given.streams))


if __name__ == "__main__":
    main()
