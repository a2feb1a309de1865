"""What the gateway itself costs, beside its peers: all stream the same script.

    .venv/bin/python -m bench.gateway gateway replicas bytes vllm litellm --litellm PATH

The servers are measured in turn, A, B, A, B, …, and the tables have the medians over the rounds.
CPU time is that of the server's process and its children. Memory is measured on servers that were
started for it alone. The token source of `bytes`, `gateway`
and `vllm` is inside their process and part of the cost; `replicas` is the gateway over a replica
and `litellm` a proxy of `bytes`, in a process each that does not count.
"""

import argparse
import asyncio
import contextlib
import signal
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from bench.gateway.measure import (
    Requests,
    Streaming,
    measure_memory,
    measure_requests,
    measure_streams,
)
from bench.gateway.servers import Server, running

T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("servers", nargs="*", default=["gateway", "bytes"])
    parser.add_argument("--litellm", help="LiteLLM's command, in an environment of its own")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--token-rates", type=int, nargs="*", default=[10, 40, 200])
    parser.add_argument("--request-rates", type=int, nargs="*", default=[100, 500])
    parser.add_argument("--open", type=int, nargs="*", default=[1000])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    # So that the servers end too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(running(name, options.litellm)) for name in options.servers]
        print(STREAMS_HEADER)
        for rate in options.token_rates:
            print_streams(servers, options, rate)
        print(REQUESTS_HEADER)
        for rate in options.request_rates:
            for streamed in (False, True):
                print_requests(servers, options, rate, streamed=streamed)
    print(MEMORY_HEADER)
    for count in options.open:
        for name in options.servers:
            with running(name, options.litellm) as server:
                print_memory(server, count)


STREAMS_HEADER = """
| server | offered tokens/s | CPU, µs/token | tokens/event | arrived tokens/s | with a whole core |
|---|--:|--:|--:|--:|--:|"""
REQUESTS_HEADER = """
| server | requests/s | streamed | CPU, ms/request | latency p50, ms | p99, ms |
|---|--:|---|--:|--:|--:|"""
MEMORY_HEADER = """
| server | open streams | KiB per stream | MiB before | MiB with them |
|---|--:|--:|--:|--:|"""


def in_turn(
    servers: Sequence[Server], rounds: int, measure: Callable[[Server], T]
) -> dict[str, list[T]]:
    """Measure the servers in turn, and return the results by their names."""
    results: dict[str, list[T]] = {server.name: [] for server in servers}
    for _ in range(rounds):
        for server in servers:
            results[server.name].append(measure(server))
    return results


def print_streams(servers: Sequence[Server], options: argparse.Namespace, rate: int) -> None:
    def measure(server: Server) -> Streaming:
        return asyncio.run(
            measure_streams(server.port, server.process, options.streams, rate, options.seconds)
        )

    for name, results in in_turn(servers, options.rounds, measure).items():
        cost = statistics.median(each.microseconds for each in results)
        per_event = statistics.median(each.tokens_per_event for each in results)
        arrived = statistics.median(each.tokens_per_second for each in results)
        cells = f"{cost:.1f} | {per_event:.2f} | {arrived:,.0f} | {1e6 / cost:,.0f}"
        print(f"| {name} | {options.streams * rate:,} | {cells} |", flush=True)


def print_requests(
    servers: Sequence[Server], options: argparse.Namespace, rate: int, *, streamed: bool
) -> None:
    def measure(server: Server) -> Requests:
        return asyncio.run(
            measure_requests(server.port, server.process, rate, options.seconds, streamed=streamed)
        )

    for name, results in in_turn(servers, options.rounds, measure).items():
        cost, p50, p99 = (
            statistics.median(getattr(each, field) for each in results)
            for field in ("milliseconds", "p50", "p99")
        )
        how = "yes" if streamed else "no"
        print(f"| {name} | {rate} | {how} | {cost:.2f} | {p50:.1f} | {p99:.1f} |", flush=True)


def print_memory(server: Server, streams: int) -> None:
    memory = asyncio.run(measure_memory(server.port, server.process, streams))
    each = 1024 * (memory.after - memory.before) / streams
    cells = f"{each:.0f} | {memory.before:.0f} | {memory.after:.0f}"
    print(f"| {server.name} | {streams:,} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
