"""The gateway against vLLM's own API server, budgets on against off, routed against named.

    .venv/bin/python -m bench.throughput

Both sides of a pair run at once, with the same model and engine settings, and
are loaded in turn: A, B, A, B, … Printed are the medians over the rounds and
the median of the ratios pair by pair. CPU time is what the server's process and
those of its engine used between them, and says more than throughput where
others use the machine too.
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
from dataclasses import dataclass
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
    """One of two things compared.

    Attributes:
        name: for the table.
        command: starts its server on the port given.
        extra: fields that its requests carry besides.
    """

    name: str
    command: Callable[[int], Sequence[str]]
    extra: Mapping[str, Any]


def gateway(port: int) -> list[str]:
    return [sys.executable, "-m", "bench.serve", str(port), json.dumps(ENGINE)]


def without_budgets(port: int) -> list[str]:
    return [*gateway(port), "--without-budgets"]


def vllm_server(port: int) -> list[str]:
    flags = []
    for name, value in ENGINE.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", str(value)]
    module = "vllm.entrypoints.openai.api_server"
    named = [
        "--model",
        str(MODEL),
        "--served-model-name",
        NAME,
        "--reasoning-parser",
        "qwen3",
        "--disable-uvicorn-access-log",
    ]
    return [sys.executable, "-m", module, "--port", str(port), *named, *flags]


CAPPED = {"max_thinking_tokens": 1000}
AUTO = {"budget_tier": "auto"}
GUARDED = {"max_thinking_tokens": 1000, "min_thinking_tokens": 100}
# Below what the demo model thinks by itself; vLLM counts the newline after the start marker too.
CUT = {"max_thinking_tokens": 24, "thinking": {"landing": "hard"}}
CUT_BY_VLLM = {"thinking_token_budget": 25}
PAIRS = {
    "peer": (Side("gateway", gateway, {}), Side("vLLM's API server", vllm_server, {})),
    "maximum": (Side("a maximum", gateway, CAPPED), Side("no budget", without_budgets, {})),
    "native": (
        Side("our maximum", gateway, CUT),
        Side("vLLM's thinking_token_budget", vllm_server, CUT_BY_VLLM),
    ),
    "router": (Side("routed", gateway, CAPPED | AUTO), Side("named", gateway, CAPPED)),
    "minimum": (Side("a minimum", gateway, GUARDED), Side("no budget", without_budgets, {})),
}


def prompts(count: int, seed: int) -> list[str]:
    """Chains of arithmetic, the demo model's world."""
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
        url: where it listens.
        process: its own process; those of its engine are children.
    """

    url: str
    process: psutil.Process

    def cpu_seconds(self) -> tuple[float, float]:
        """CPU time used so far by the server's own process, and by its engine's."""
        own, *engine = (
            sum(process.cpu_times()[:2])
            for process in (self.process, *self.process.children(recursive=True))
        )
        return own, sum(engine)


@dataclass(frozen=True)
class Round:
    """One load on one server.

    Attributes:
        load: what the client saw.
        server_cpu: CPU seconds of the server's own process.
        engine_cpu: CPU seconds of its engine's processes.
    """

    load: Load
    server_cpu: float
    engine_cpu: float


@contextlib.contextmanager
def serving(side: Side) -> Iterator[Server]:
    """A side's server, from start to readiness to end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Two engines share the machine: left to themselves each would take all memory and cores.
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    process = subprocess.Popen(
        side.command(port), env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        asyncio.run(_until_ready(url, process))
        yield Server(url, psutil.Process(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


async def _until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(START_TIMEOUT):
        while process.poll() is None:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                for path in ("ready", "health"):
                    async with session.get(f"{url}/{path}") as response:
                        if response.status == 200:
                            return
                        if response.status == 503:
                            break
            await asyncio.sleep(0.5)
    raise RuntimeError(f"a server ended with status {process.returncode} before it was ready")


def compare(
    pair: tuple[Side, Side], streams: Sequence[int], rounds: int, per_stream: int
) -> Iterator[str]:
    """A row of the table for each number of streams."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serving(side)) for side in pair]
        for number in streams:
            count = number * per_stream * (4 if number == 1 else 1)
            measured: tuple[list[Round], list[Round]] = ([], [])
            for turn in range(rounds + 1):
                for side, server, done in zip(pair, servers, measured, strict=True):
                    done.append(run(server, bodies(side, count, seed=turn), number))
            warm = [done[1:] for done in measured]
            yield row(f"{pair[0].name} / {pair[1].name}", number, *warm)


def run(server: Server, requests: Sequence[Mapping[str, Any]], streams: int) -> Round:
    """Load a server once."""
    own, engine = server.cpu_seconds()
    load = asyncio.run(run_load(server.url, requests, streams))
    own_after, engine_after = server.cpu_seconds()
    return Round(load, own_after - own, engine_after - engine)


COLUMNS: Mapping[str, Callable[[Round], float]] = {
    "tokens/s": lambda done: done.load.tokens_per_second,
    "first text, ms": lambda done: 1e3 * done.load.first_median,
    "gap p99, ms": lambda done: 1e3 * done.load.gap_p99,
    "server CPU, µs/token": lambda done: 1e6 * done.server_cpu / done.load.tokens,
    "engine CPU, µs/token": lambda done: 1e6 * done.engine_cpu / done.load.tokens,
}


def header() -> str:
    names = "".join(f" {name} A | B | A/B |" for name in COLUMNS)
    return f"| A / B | streams |{names}\n|---|---|{'---|' * 3 * len(COLUMNS)}"


def row(names: str, streams: int, one: Sequence[Round], other: Sequence[Round]) -> str:
    cells = "".join(f" {medians(of, one, other)} |" for of in COLUMNS.values())
    return f"| {names} | {streams} |{cells}"


def medians(of: Callable[[Round], float], one: Sequence[Round], other: Sequence[Round]) -> str:
    left, right = list(map(of, one)), list(map(of, other))
    ratio = statistics.median(a / b for a, b in zip(left, right, strict=True))
    return f"{statistics.median(left):.4g} | {statistics.median(right):.4g} | {ratio:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", default=["peer", "maximum", "minimum"])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--per-stream", type=int, default=6)
    given = parser.parse_args()
    print(header(), flush=True)
    for name in given.pairs:
        for line in compare(PAIRS[name], given.streams, given.rounds, given.per_stream):
            print(line, flush=True)


if __name__ == "__main__":
    main()
