"""What several workers serve, against one: `proctor serve --workers`.

    .venv/bin/python -m bench.workers

The engine is a scripted completions server, which streams ids at a fixed pace, so that only
gateways are measured. All figures are CPU time of the workers' processes: the load generator and
the completions server have processes of their own, which do not count. The capacity of some workers
is the number of tokens per second at which the busiest has used up one core:

    tokens / CPU seconds of the busiest worker

Each number of workers has a server of its own. They are started together and loaded alternately;
all of them get the same number of streams per worker.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.load import run_load

MODEL = Path(__file__).parents[1] / "demo" / "model"
NAME = "proctor-demo"
SERVE = "import sys; from proctor.server.cli.main import main; sys.exit(main())"
WORKER = "proctor.server.cli.workers.worker"
START_SECONDS = 300
PLAIN_TOKENS = range(41, 99)
"""Tokens of letters in the demo model's vocabulary."""


@dataclass(frozen=True)
class Gateway:
    """A running server.

    Attributes:
        url: its base URL.
        workers: the processes that answer requests.
    """

    url: str
    workers: Sequence[psutil.Process]

    def cpu_seconds(self) -> list[float]:
        """Return the CPU time of each worker so far."""
        return [sum(worker.cpu_times()[:2]) for worker in self.workers]


@dataclass(frozen=True)
class Round:
    """The measurements of one round.

    Attributes:
        tokens: the streamed tokens.
        seconds: the CPU time of each worker.
    """

    tokens: int
    seconds: Sequence[float]

    @property
    def microseconds_per_token(self) -> float:
        """The CPU time of all workers together, per token."""
        return 1e6 * sum(self.seconds) / self.tokens

    @property
    def capacity(self) -> float:
        """The tokens per second at which the busiest worker has used up one core."""
        return self.tokens / max(self.seconds)

    @property
    def busiest_share(self) -> float:
        """The busiest worker's share of the CPU time of all."""
        return max(self.seconds) / sum(self.seconds)


class Upstream:
    """A completions server that streams ids: an ASGI application."""

    def __init__(self, interval: float) -> None:
        """Initialize the server.

        Args:
            interval: the seconds between two tokens of a stream.
        """
        self._interval = interval

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/v1/completions":
            models = {"data": [{"id": NAME, "max_model_len": 2**16}]}
            await _respond(send, b"application/json", json.dumps(models).encode())
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await _respond(send, b"text/event-stream", b"", more=True)
        await self._stream(json.loads(body), send)

    async def _stream(self, request: dict[str, Any], send: Any) -> None:
        count = request["max_tokens"]
        biases = request.get("logit_bias") or {}
        forced = [int(token) for token, bias in biases.items() if bias > 0]
        loop = asyncio.get_running_loop()
        due = loop.time()
        for at in range(count):
            token = forced[0] if forced else PLAIN_TOKENS[at * at % len(PLAIN_TOKENS)]
            finish = "length" if at == count - 1 else None
            choice = {"index": 0, "text": "", "token_ids": [token], "finish_reason": finish}
            event = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
            await send({"type": "http.response.body", "body": event, "more_body": True})
            due += self._interval
            await asyncio.sleep(due - loop.time())
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _respond(send: Any, kind: bytes, body: bytes, more: bool = False) -> None:
    headers = [(b"content-type", kind)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more})


def serve_upstream(interval: float) -> None:
    """Serve the upstream on a free port, which is printed."""
    import uvicorn

    class Announced(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            print(self.servers[0].sockets[0].getsockname()[1], flush=True)

    config = uvicorn.Config(Upstream(interval), port=0, access_log=False, log_level="warning")
    Announced(config).run()


@contextlib.contextmanager
def running_upstream(interval: float) -> Iterator[str]:
    """Run the upstream in a process, and yield its base URL."""
    command = [sys.executable, "-m", "bench.workers", "--upstream", str(interval)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.terminate()


@contextlib.contextmanager
def running_gateway(workers: int, upstream: str, folder: str) -> Iterator[Gateway]:
    """Run `proctor serve`, and yield it once all its workers are ready."""
    engine = ["--engine", "kind=completions", "--engine", f"base_url={upstream}"]
    command = [sys.executable, "-c", SERVE, "serve", "--port", "0", "--workers", str(workers)]
    command += ["--model", str(MODEL), "--served-model-name", NAME, *engine]
    environment = os.environ | {"PROCTOR_LEDGER__URL": f"sqlite:///{folder}/{workers}.db"}
    process = psutil.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    try:
        url = ""
        for line in process.stdout:
            if found := re.search(r"http://[\d.:]+", line):
                url = found[0]
            if "curl" in line:
                break
        else:
            raise RuntimeError("the gateway did not start")
        timer.cancel()
        children = [each for each in process.children() if WORKER in each.cmdline()]
        yield Gateway(url, children or [process])
    finally:
        timer.cancel()
        process.terminate()
        process.wait()


def measure(gateway: Gateway, streams: int, tokens: int, requests: int) -> Round:
    """Load a server with some streams per worker."""
    body = {
        "model": NAME,
        "messages": [{"role": "user", "content": "Start with 7, add 5."}],
        "max_tokens": tokens,
        "max_thinking_tokens": tokens,
        "thinking": {"on_loop": "off"},
    }
    count = len(gateway.workers)
    before = gateway.cpu_seconds()
    load = asyncio.run(run_load(gateway.url, [body] * (requests * count), streams * count))
    after = gateway.cpu_seconds()
    return Round(load.tokens, [late - early for early, late in zip(before, after, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--streams", type=int, default=32, help="streams per worker")
    parser.add_argument("--requests", type=int, default=96, help="requests per worker and round")
    parser.add_argument("--tokens", type=int, default=200, help="tokens of each stream")
    parser.add_argument("--interval", type=float, default=0.04, help="seconds between two tokens")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--upstream", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.upstream is not None:
        serve_upstream(options.upstream)
        return
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(running_upstream(options.interval))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        gateways = [
            stack.enter_context(running_gateway(count, upstream, folder))
            for count in options.workers
        ]
        rounds: list[list[Round]] = [[] for _ in gateways]
        for at in range(options.rounds + 1):
            for gateway, results in zip(gateways, rounds, strict=True):
                result = measure(gateway, options.streams, options.tokens, options.requests)
                if at:  # the first warms up
                    results.append(result)
    print("| workers | streams | CPU, µs/token | busiest, share | capacity, tokens/s | ratio |")
    print("|--:|--:|--:|--:|--:|--:|")
    for count, results in zip(options.workers, rounds, strict=True):
        print(row(count, options.streams, results, rounds[0]))


def row(workers: int, streams: int, rounds: Sequence[Round], base: Sequence[Round]) -> str:
    """Format the medians of some rounds, and their ratio to those of the first server."""
    cost = statistics.median(each.microseconds_per_token for each in rounds)
    share = statistics.median(each.busiest_share for each in rounds)
    capacity = statistics.median(each.capacity for each in rounds)
    ratio = statistics.median(
        each.capacity / one.capacity for each, one in zip(rounds, base, strict=True)
    )
    return (
        f"| {workers} | {streams * workers} | {cost:.0f} | {share:.0%} | {capacity:,.0f} "
        f"| {ratio:.2f} |"
    )


if __name__ == "__main__":
    main()
