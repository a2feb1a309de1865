"""The cost of a continuation: inside the engine against stop-and-resubmit.

    .venv/bin/python -m bench.continuations

Both sides are the same gateway with the same model and engine settings; one embeds
the engine, the other resubmits to vLLM's own API server. Both servers run at the same
time and are loaded in turn, with the same greedy requests. The table has the medians
over the rounds, and the medians of the ratios per round, of:

- request: milliseconds from a request to its last byte, the median of a round;
- pause: milliseconds between the last text before a continuation and the first text
  after it, as a reader of the stream sees it. It is the mean of a round, because a
  busy client reads several events at once, which distorts single pauses;
- extra: additional milliseconds of a request per continuation, including the thinking
  that follows it.

Streams in which the model itself wrote "Wait", or with fewer continuations than
requested, are excluded from the pauses.
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.throughput import ENGINE, MODEL, NAME, Side, serving, vllm_server

CONTINUATION = "Wait"
COUNTS = (0, 1, 2, 4, 8)
EMBEDDED, RESUBMITTED = "in the engine", "resubmitted"


@dataclass(frozen=True)
class Trace:
    """A recorded stream.

    Attributes:
        seconds: from the request to the end of the stream.
        arrivals: the arrival time in seconds and the text of each delta of the thinking.
    """

    seconds: float
    arrivals: Sequence[tuple[float, str]]

    @property
    def pauses(self) -> list[float]:
        """The seconds from the text before each continuation to the text after it."""
        times = [arrival for arrival, _ in self.arrivals]
        inner = enumerate(self.arrivals[1:-1], start=1)
        return [
            times[index + 1] - times[index - 1]
            for index, (_, text) in inner
            if CONTINUATION in text
        ]


@dataclass(frozen=True)
class Figures:
    """The results of one side in one round: milliseconds by number of continuations."""

    request: Mapping[int, float]
    pause: Mapping[int, float]

    def extra(self, count: int) -> float:
        return (self.request[count] - self.request[0]) / count


def figures(traces: Mapping[int, Sequence[Trace]]) -> Figures:
    pauses = {
        count: [pause for trace in group if len(trace.pauses) == count for pause in trace.pauses]
        for count, group in traces.items()
    }
    return Figures(
        {
            count: 1000 * statistics.median(trace.seconds for trace in group)
            for count, group in traces.items()
        },
        {count: 1000 * statistics.fmean(group) for count, group in pauses.items() if group},
    )


def embedded(cached: bool) -> Side:
    arguments = json.dumps(ENGINE | {"enable_prefix_caching": cached})
    return Side(
        EMBEDDED, lambda port: [sys.executable, "-m", "bench.serve", str(port), arguments], {}
    )


def peer(cached: bool) -> Side:
    flag = "--enable-prefix-caching" if cached else "--no-enable-prefix-caching"
    return Side("vLLM's API server", lambda port: [*vllm_server(port), flag], {})


def resubmitted(base_url: str) -> Side:
    start = "import sys; from proctor.server.cli.main import main; sys.exit(main())"
    flags = ["--model", str(MODEL), "--served-model-name", NAME]
    flags += ["--engine", "kind=completions", "--engine", f"base_url={base_url}/v1"]
    return Side(
        RESUBMITTED,
        lambda port: [sys.executable, "-c", start, "serve", "--port", str(port), *flags],
        {},
    )


@contextlib.contextmanager
def both(cached: bool) -> Iterator[dict[str, str]]:
    """Run the servers of both sides; yield their URLs."""
    with contextlib.ExitStack() as stack:
        (in_engine,) = stack.enter_context(serving(embedded(cached)))
        (upstream,) = stack.enter_context(serving(peer(cached)))
        (gateway,) = stack.enter_context(serving(resubmitted(upstream.url)))
        yield {EMBEDDED: in_engine.url, RESUBMITTED: gateway.url}


def requests(count: int, continuations: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield requests with short problems, which fit the context even with eight continuations."""
    rng = random.Random(seed)
    for _ in range(count):
        first, second = rng.sample(("add", "subtract", "times"), 2)
        steps = f"{first} {rng.randint(2, 9)}, {second} {rng.randint(2, 9)}"
        text = f"Start with {rng.randrange(100)}, {steps}. What are the last two digits?"
        yield {
            "model": NAME,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "stream": True,
            "thinking": {
                "continuations": continuations,
                "continuation_text": CONTINUATION,
            },
        }


async def load(url: str, bodies: Iterable[Mapping[str, Any]], streams: int) -> list[Trace]:
    """Send all requests, `streams` at a time."""
    queue = iter(bodies)
    traces: list[Trace] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def work() -> None:
            traces.extend([await read(session, url, body) for body in queue])

        await asyncio.gather(*(work() for _ in range(streams)))
    return traces


async def read(session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> Trace:
    """Send a request and record its stream.

    Raises:
        RuntimeError: if the stream fails or is incomplete.
    """
    begin = time.perf_counter()
    arrivals: list[tuple[float, str]] = []
    finished = False
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        async for line in response.content:
            now = time.perf_counter() - begin
            if not line.startswith(b"data: {"):
                continue
            (choice,) = json.loads(line[6:]).get("choices") or [{"delta": {}}]
            if text := choice["delta"].get("reasoning_content"):
                arrivals.append((now, text))
            finished = finished or bool(choice.get("finish_reason"))
    if not finished:
        raise RuntimeError(f"a stream was incomplete, status {response.status}")
    return Trace(time.perf_counter() - begin, arrivals)


def measure(
    urls: Mapping[str, str], streams: int, rounds: int, per_stream: int
) -> dict[str, list[Figures]]:
    measured: dict[str, list[Figures]] = {name: [] for name in urls}
    for turn in range(rounds + 1):
        traces: dict[str, dict[int, list[Trace]]] = {name: {} for name in urls}
        for count in COUNTS:
            for name, url in urls.items():
                bodies = requests(streams * per_stream, count, seed=turn)
                traces[name][count] = asyncio.run(load(url, bodies, streams))
        if turn:  # the first round warms both up
            for name, by_count in traces.items():
                measured[name].append(figures(by_count))
    return measured


def rows(measured: Mapping[str, Sequence[Figures]], cached: bool, streams: int) -> Iterator[str]:
    def pair(of: Callable[[Figures, int], float | None], count: int) -> str:
        sides = ([of(side, count) for side in measured[name]] for name in (EMBEDDED, RESUBMITTED))
        pairs = [(a, b) for a, b in zip(*sides, strict=True) if a is not None and b is not None]
        if not pairs:
            return " | | "
        one, other = (statistics.median(side) for side in zip(*pairs, strict=True))
        return f"{one:.4g} | {other:.4g} | {statistics.median(b / a for a, b in pairs):.2f}"

    for count in COUNTS:
        cells = [pair(lambda side, count: side.request[count], count)]
        if count:
            cells.append(pair(lambda side, count: side.pause.get(count), count))
            cells.append(pair(Figures.extra, count))
        cache = "on" if cached else "off"
        yield f"| {cache} | {streams} | {count} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--per-stream", type=int, default=4)
    options = parser.parse_args()
    print(
        "| prefix cache | streams | continuations | request ms in the engine | resubmitted | ratio "
        "| pause ms in the engine | resubmitted | ratio | extra ms each in the engine "
        "| resubmitted | ratio |\n" + "|---" * 12 + "|",
        flush=True,
    )
    for cached in (True, False):
        with both(cached) as urls:
            for streams in options.streams:
                per_stream = options.per_stream * (4 if streams == 1 else 1)
                measured = measure(urls, streams, options.rounds, per_stream)
                print("\n".join(rows(measured, cached, streams)), flush=True)


if __name__ == "__main__":
    main()
