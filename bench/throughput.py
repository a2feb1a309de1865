"""Throughput of the gateway: against vLLM's own API server, and with budgets against without.

    .venv/bin/python -m bench.throughput

Both servers of a pair run at the same time, with the same model and engine settings,
and are loaded in turn: A, B, A, B, … The table has the medians over the rounds, and
the medians of the ratios per round. CPU time is that of the server's process and of its
engine's processes; it is more reliable than throughput on a shared machine.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from bench.load import Load, run_load

MODEL = Path(__file__).parent.parent / "demo" / "model"
NAME = "proctor-demo"
ENGINE = {
    "max_model_len": 2048,
    "max_num_seqs": 64,
    "enforce_eager": True,
    "enable_chunked_prefill": False,
    "max_num_batched_tokens": 8192,
}
START_TIMEOUT = 300.0


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: the name in the table.
        command: returns the command that starts its server on a port.
        extra: additional fields of its requests.
        environment: additional environment variables of the server.
    """

    name: str
    command: Callable[[int], Sequence[str]]
    extra: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)


def gateway(port: int, model: str = str(MODEL), engine: Mapping[str, Any] = ENGINE) -> list[str]:
    command = [sys.executable, "-m", "bench.serve", str(port), json.dumps(engine)]
    return [*command, "--model", model]


def without_budgets(port: int) -> list[str]:
    return [*gateway(port), "--without-budgets"]


def vllm_server(
    port: int, model: str = str(MODEL), engine: Mapping[str, Any] = ENGINE
) -> list[str]:
    flags = []
    for name, value in engine.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", value if isinstance(value, str) else json.dumps(value)]
    module = "vllm.entrypoints.openai.api_server"
    model_flags = [
        "--model",
        model,
        "--served-model-name",
        NAME,
        "--reasoning-parser",
        "qwen3",
        "--disable-uvicorn-access-log",
    ]
    return [sys.executable, "-m", module, "--port", str(port), *model_flags, *flags]


CAPPED = {"max_thinking_tokens": 1000}
AUTO = {"budget_tier": "auto"}
MINIMUM = {"max_thinking_tokens": 1000, "min_thinking_tokens": 100}
# Below the demo model's natural length; vLLM also counts the newline after the start marker.
CUT = {"max_thinking_tokens": 24, "thinking": {"landing": "hard"}}
CUT_BY_VLLM = {"thinking_token_budget": 25}
PAIRS = {
    "peer": (Side("gateway", gateway, {}), Side("vLLM's API server", vllm_server, {})),
    "maximum": (Side("a maximum", gateway, CAPPED), Side("no budget", without_budgets, {})),
    "native": (
        Side("Proctor's maximum", gateway, CUT),
        Side("vLLM's thinking_token_budget", vllm_server, CUT_BY_VLLM),
    ),
    "router": (Side("routed", gateway, CAPPED | AUTO), Side("explicit", gateway, CAPPED)),
    "minimum": (Side("a minimum", gateway, MINIMUM), Side("no budget", without_budgets, {})),
}


def prompts(count: int, seed: int) -> list[str]:
    """Return chains of arithmetic, the demo model's domain."""
    rng = random.Random(seed)
    chains = []
    for _ in range(count):
        steps = [
            f"{rng.choice(('add', 'subtract', 'times'))} {rng.randint(2, 9)}" for _ in range(8)
        ]
        chains.append(f"Start with {rng.randrange(100)}, {', '.join(steps)}. What is the result?")
    return chains


def bodies(side: Side, count: int, seed: int) -> list[dict[str, Any]]:
    return [
        {
            "model": NAME,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 400,
            "temperature": 0,
            **side.extra,
        }
        for text in prompts(count, seed)
    ]


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: the base URL.
        process: the server's process; those of its engine are its children.
    """

    url: str
    process: psutil.Popen

    def cpu_seconds(self) -> tuple[float, float]:
        """Return the CPU time so far of the server's process, and of its engine's processes."""
        own, *engine = (
            sum(process.cpu_times()[:2])
            for process in (self.process, *self.process.children(recursive=True))
        )
        return own, sum(engine)


@dataclass(frozen=True)
class Round:
    """The measurements of one load on one server.

    Attributes:
        load: the client's measurements.
        server_cpu: CPU seconds of the server's process.
        engine_cpu: CPU seconds of its engine's processes.
    """

    load: Load
    server_cpu: float
    engine_cpu: float


@contextlib.contextmanager
def starting(side: Side) -> Iterator[Server]:
    """Run a side's server, without waiting until it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Two engines share the machine; by default, each would take all memory.
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    environment |= side.environment
    process = psutil.Popen(
        side.command(port), env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    )
    try:
        yield Server(f"http://127.0.0.1:{port}", process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except psutil.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def serving(*sides: Side) -> Iterator[list[Server]]:
    """Run the servers of all sides; yield them once all are ready."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(starting(side)) for side in sides]
        for server in servers:
            asyncio.run(_until_ready(server))
        yield servers


async def _until_ready(server: Server) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(START_TIMEOUT):
        while server.process.poll() is None:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                for path in ("ready", "health"):
                    async with session.get(f"{server.url}/{path}") as response:
                        if response.status == 200:
                            return
                        if response.status == 503:
                            break
            await asyncio.sleep(0.5)
    status = server.process.returncode
    raise RuntimeError(f"a server exited with status {status} before it was ready")


def compare(
    pair: tuple[Side, Side], streams: Sequence[int], rounds: int, per_stream: int
) -> Iterator[str]:
    """Yield a row of the table for each number of streams."""
    with serving(*pair) as servers:
        for number in streams:
            count = number * per_stream * (4 if number == 1 else 1)
            results: tuple[list[Round], list[Round]] = ([], [])
            for turn in range(rounds + 1):
                for side, server, rounds_done in zip(pair, servers, results, strict=True):
                    rounds_done.append(run(server, bodies(side, count, seed=turn), number))
            without_warm_up = [rounds_done[1:] for rounds_done in results]
            yield row(f"{pair[0].name} / {pair[1].name}", number, *without_warm_up)


def run(server: Server, requests: Sequence[Mapping[str, Any]], streams: int) -> Round:
    """Load a server once, and measure."""
    own, engine = server.cpu_seconds()
    load = asyncio.run(run_load(server.url, requests, streams))
    own_after, engine_after = server.cpu_seconds()
    return Round(load, own_after - own, engine_after - engine)


COLUMNS: Mapping[str, Callable[[Round], float]] = {
    "tokens/s": lambda result: result.load.tokens_per_second,
    "first text, ms": lambda result: 1e3 * result.load.first_median,
    "gap p99, ms": lambda result: 1e3 * result.load.gap_p99,
    "server CPU, µs/token": lambda result: 1e6 * result.server_cpu / result.load.tokens,
    "engine CPU, µs/token": lambda result: 1e6 * result.engine_cpu / result.load.tokens,
}


def header() -> str:
    names = "".join(f" {name} A | B | A/B |" for name in COLUMNS)
    return f"| A / B | streams |{names}\n|---|---|{'---|' * 3 * len(COLUMNS)}"


def row(names: str, streams: int, a: Sequence[Round], b: Sequence[Round]) -> str:
    cells = "".join(f" {medians(metric, a, b)} |" for metric in COLUMNS.values())
    return f"| {names} | {streams} |{cells}"


def medians(metric: Callable[[Round], float], a: Sequence[Round], b: Sequence[Round]) -> str:
    of_a, of_b = list(map(metric, a)), list(map(metric, b))
    ratio = statistics.median(one / other for one, other in zip(of_a, of_b, strict=True))
    return f"{statistics.median(of_a):.4g} | {statistics.median(of_b):.4g} | {ratio:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", default=["peer", "maximum", "minimum"])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--per-stream", type=int, default=6)
    options = parser.parse_args()
    print(header(), flush=True)
    for name in options.pairs:
        for line in compare(PAIRS[name], options.streams, options.rounds, options.per_stream):
            print(line, flush=True)


if __name__ == "__main__":
    main()
