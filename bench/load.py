"""A lightweight load generator: concurrent streams against one OpenAI-compatible server."""

import asyncio
import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp


@dataclass
class Load:
    """The measurements of one run.

    Attributes:
        seconds: wall-clock time of the whole run.
        tokens: completion tokens, as the server's usage counts them.
        first: seconds to each stream's first event with text.
        gaps: seconds between a stream's later events with text.
    """

    seconds: float = 0.0
    tokens: int = 0
    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def first_median(self) -> float:
        return statistics.median(self.first)

    @property
    def gap_p99(self) -> float:
        return statistics.quantiles(self.gaps, n=100)[98]


async def run_load(url: str, bodies: Iterable[Mapping[str, Any]], streams: int) -> Load:
    """Send all bodies, `streams` at a time, and read each stream to its end.

    Raises:
        RuntimeError: if a stream fails or ends without usage.
    """
    load = Load()
    queue = iter(bodies)
    # A server can close a keep-alive connection just when it is used again.
    limits = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=limits) as session:

        async def work() -> None:
            for body in queue:
                await _stream(session, url, body, load)

        begin = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(streams)))
        load.seconds = time.perf_counter() - begin
    return load


async def _stream(
    session: aiohttp.ClientSession, url: str, body: Mapping[str, Any], load: Load
) -> None:
    sent = before = time.perf_counter()
    usage: Sequence[bytes] = ()
    request = {**body, "stream": True, "stream_options": {"include_usage": True}}
    async with session.post(f"{url}/v1/chat/completions", json=request) as response:
        if response.status != 200:
            raise RuntimeError(await response.text())
        async for line in response.content:
            # A choice's first chunk has no text; some servers send it before generation starts.
            if not line.startswith(b"data: {") or b'"role":' in line:
                continue
            now = time.perf_counter()
            if b'"usage":{' in line or b'"usage": {' in line:
                usage = (line,)
                continue
            if before is sent:
                load.first.append(now - sent)
            else:
                load.gaps.append(now - before)
            before = now
    if not usage:
        raise RuntimeError("a stream ended without usage")
    load.tokens += json.loads(usage[0][6:])["usage"]["completion_tokens"]
