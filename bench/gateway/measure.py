"""What is measured of one server."""

import asyncio
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.gateway.load import open_streams, send_at_rate
from bench.gateway.serve import NAME

ENDLESS = 1_000_000
"""Tokens of a stream that does not end while it is measured."""

SHORT = 8
"""Tokens of a short request, which the engine produces at once."""

IDLE_RATE = 1 / 60
"""Tokens per second of a stream that is open and mostly waits."""

SETTLE_SECONDS = 1.0
PROMPT = [{"role": "user", "content": "Start with 7, add 5, times 3. What is the result?"}]


def chat(max_tokens: int, rate: float = 0, **fields: Any) -> dict[str, Any]:
    """Return a chat request whose tokens come at a rate per second, or at once."""
    request = {"model": NAME, "messages": PROMPT, "max_tokens": max_tokens, **fields}
    return request | {"seed": round(60 * rate)} if rate else request


@dataclass(frozen=True)
class Streaming:
    """The measurements of many streams over some seconds.

    Attributes:
        tokens_per_second: what has arrived.
        microseconds: the server's CPU time per token.
        tokens_per_event: more than one where the server was behind.
    """

    tokens_per_second: float
    microseconds: float
    tokens_per_event: float


@dataclass(frozen=True)
class Requests:
    """The measurements of short requests.

    Attributes:
        milliseconds: the server's CPU time per request.
        p50: the median of their latencies, in milliseconds.
        p99: the 99th percentile.
    """

    milliseconds: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Memory:
    """The resident memory of a server's process, in MiB.

    Attributes:
        before: before the first stream was opened.
        after: with all streams open.
    """

    before: float
    after: float


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time so far of a process and its children.

    From the scheduler's own count, as that of `psutil` has steps of ten milliseconds.
    """
    nanoseconds = 0
    for each in (process, *process.children(recursive=True)):
        for thread in Path(f"/proc/{each.pid}/task").iterdir():
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def resident_mib(process: psutil.Process) -> float:
    """Return the resident memory of a process, in MiB."""
    resident: int = process.memory_info().rss
    return resident / 2**20


async def measure_streams(
    port: int, process: psutil.Process, streams: int, rate: int, seconds: float
) -> Streaming:
    """Measure streams in the middle, without their beginnings and ends."""
    opened = await open_streams(port, streams, chat(ENDLESS, rate, stream=True))
    await asyncio.sleep(SETTLE_SECONDS)
    loop = asyncio.get_running_loop()
    began, cpu = loop.time(), cpu_seconds(process)
    tokens, events = sum(each.tokens for each in opened), sum(each.events for each in opened)
    await asyncio.sleep(seconds)
    cpu, elapsed = cpu_seconds(process) - cpu, loop.time() - began
    tokens = sum(each.tokens for each in opened) - tokens
    events = sum(each.events for each in opened) - events
    for each in opened:
        each.close()
    await asyncio.sleep(SETTLE_SECONDS)
    return Streaming(tokens / elapsed, 1e6 * cpu / tokens, tokens / events)


async def measure_requests(
    port: int, process: psutil.Process, rate: int, seconds: float, *, streamed: bool
) -> Requests:
    """Measure short requests, which are sent at a rate whether or not the server keeps up."""
    body = chat(SHORT, stream=streamed)
    await send_at_rate(port, body, rate, 1.0)
    cpu = cpu_seconds(process)
    latencies = [1e3 * each for each in await send_at_rate(port, body, rate, seconds)]
    cpu = cpu_seconds(process) - cpu
    percentiles = statistics.quantiles(latencies, n=100)
    return Requests(1e3 * cpu / len(latencies), percentiles[49], percentiles[98])


async def measure_memory(port: int, process: psutil.Process, streams: int) -> Memory:
    """Measure open streams that wait for their next token, on a server that had none before."""
    before = resident_mib(process)
    opened = await open_streams(port, streams, chat(ENDLESS, IDLE_RATE, stream=True))
    after = resident_mib(process)
    for each in opened:
        each.close()
    return Memory(before, after)
