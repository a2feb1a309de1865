"""The gateway against vLLM's own API server, and budgets on against budgets off.

    .venv/bin/python -m bench.throughput

Both sides of a pair run at once, with the same model and engine settings, and
are loaded in turn: A, B, A, B, … Printed are the medians over the rounds and
the median of the ratios pair by pair.
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
GUARDED = {"max_thinking_tokens": 1000, "min_thinking_tokens": 100}
PAIRS = {
    "peer": (Side("gateway", gateway, {}), Side("vLLM's API server", vllm_server, {})),
    "maximum": (Side("a maximum", gateway, CAPPED), Side("no budget", without_budgets, {})),
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


@contextlib.contextmanager
def serving(side: Side) -> Iterator[str]:
    """A side's server, from start to readiness to end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Two engines share the machine: left to themselves each would take all memory and cores.
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    process = subprocess.Popen(side.command(port), env=environment, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        asyncio.run(_until_ready(url, process))
        yield url
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


def compare(pair: tuple[Side, Side], streams: int, rounds: int, per_stream: int) -> str:
    """One row of the table."""
    one, other = pair
    measured: dict[str, list[Load]] = {one.name: [], other.name: []}
    with serving(one) as one_url, serving(other) as other_url:
        urls = {one.name: one_url, other.name: other_url}
        for turn in range(rounds + 1):
            for side in pair:
                requests = bodies(side, streams * per_stream, seed=turn)
                load = asyncio.run(run_load(urls[side.name], requests, streams))
                if turn:  # the first round warms both up
                    measured[side.name].append(load)
    return row(one.name, other.name, streams, measured)


def row(one: str, other: str, streams: int, measured: Mapping[str, Sequence[Load]]) -> str:
    def medians(of: Callable[[Load], float]) -> str:
        left, right = ([of(load) for load in measured[name]] for name in (one, other))
        ratio = statistics.median(a / b for a, b in zip(left, right, strict=True))
        return f"{statistics.median(left):.4g} | {statistics.median(right):.4g} | {ratio:.3f}"

    return (
        f"| {one} / {other} | {streams} | {medians(lambda load: load.tokens_per_second)} "
        f"| {medians(lambda load: 1000 * load.first_median)} "
        f"| {medians(lambda load: 1000 * load.gap_p99)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", default=["peer", "maximum", "minimum"])
    parser.add_argument("--streams", default="1,16,64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--per-stream", type=int, default=6)
    given = parser.parse_args()
    print(
        "| pair (A / B) | streams | tokens/s A | B | A/B | first text ms A | B | A/B "
        "| gap p99 ms A | B | A/B |\n|---|---|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for name in given.pairs:
        for streams in map(int, given.streams.split(",")):
            rounds = given.rounds
            per_stream = given.per_stream * (4 if streams == 1 else 1)
            print(compare(PAIRS[name], streams, rounds, per_stream), flush=True)


if __name__ == "__main__":
    main()
