"""`proctor serve`: the command line."""

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import uvicorn

from server.app import create_app
from server.host import EngineHost
from server.loader import load_engine
from server.schemas import ReasoningFormat
from server.settings import BadSettings, Settings, load_settings

PROGRESS_SECONDS = 10
KEEP_ALIVE_SECONDS = 75
"""Longer than the minute after which load balancers and clients let go of an idle connection, so
that it is not closed under them in the moment in which they use it again."""

ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Addresses that mean every interface, and one that a client can use instead."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    options = vars(_parser().parse_args(arguments))
    options.pop("command")
    config = options.pop("config")
    flags = {name: value for name, value in options.items() if value is not None}
    if "engine" in flags:
        flags["engine"] = dict(flags["engine"])
    try:
        settings = load_settings(flags, config)
    except BadSettings as error:
        print(f"proctor: {error}".replace("\n", "\nproctor: "), file=sys.stderr)
        return 2
    return _serve(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="proctor", description="Serve a reasoning model within a thinking budget."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser(
        "serve",
        help="serve a model over HTTP",
        argument_default=None,
        epilog="Every setting can also stand in proctor.toml or in PROCTOR_* variables.",
    )
    serve.add_argument("--config", type=Path, help="settings (default: ./proctor.toml)")
    serve.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", help="port to listen on (default: 8000)")
    serve.add_argument("--model", help="path or Hugging Face name (default: the demo model)")
    serve.add_argument("--served-model-name", help="what clients call the model")
    serve.add_argument(
        "--engine",
        action="append",
        type=_engine_argument,
        metavar="KEY=VALUE",
        help="an engine argument of vLLM's, its value in JSON or plain; may be repeated",
    )
    serve.add_argument("--reasoning-parser", help="vLLM's parser to take the markers from")
    serve.add_argument("--thinking-start", help="text that opens the thinking")
    serve.add_argument("--thinking-end", help="text that closes the thinking")
    serve.add_argument(
        "--reasoning-format",
        choices=[style.value for style in ReasoningFormat],
        help="where responses carry the thinking",
    )
    return parser


def _engine_argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is not KEY=VALUE")
    try:
        return name.replace("-", "_"), json.loads(value)
    except ValueError:
        return name.replace("-", "_"), value


def _serve(settings: Settings) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # Once it has drained, uvicorn raises the signal that stopped it again: end as asked, with 0.
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, _exit)
    app = create_app(settings, partial(load_engine, settings))
    grace = settings.limits.shutdown_grace_seconds
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        # Streams end by themselves at the end of the grace; this is for whatever does not.
        timeout_graceful_shutdown=grace + 1,
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        return runner.run(_run(Server(config), app.state.host, settings))


class Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        self.listening.set()


def _exit(*_: object) -> NoReturn:
    raise SystemExit(0)


async def _run(server: Server, host: EngineHost, settings: Settings) -> int:
    serving = asyncio.create_task(server.serve())
    announcing = asyncio.create_task(_announce(server, host, settings))
    await asyncio.wait({serving, announcing}, return_when=asyncio.FIRST_COMPLETED)
    failed = announcing.done() and not announcing.result()
    if failed:
        server.should_exit = True
    announcing.cancel()
    await serving
    return 1 if failed else 0


async def _announce(server: Server, host: EngineHost, settings: Settings) -> bool:
    """Tell how the start goes; whether it went well."""
    await server.listening.wait()
    address = _address(server, settings)
    print(f"Listening on {address}; loading {settings.model_name} ...", flush=True)
    began = time.monotonic()
    loading = asyncio.ensure_future(host.loaded())
    while not (await asyncio.wait({loading}, timeout=PROGRESS_SECONDS))[0]:
        print(f"  still loading, {time.monotonic() - began:.0f} s", flush=True)
    if loading.exception() is not None:
        print(f"proctor: {settings.model_name} failed to load", file=sys.stderr)
        return False
    print(f"Ready after {time.monotonic() - began:.0f} s. Try:\n\n{_example(address, settings)}\n")
    sys.stdout.flush()
    return True


def _address(server: Server, settings: Settings) -> str:
    port = server.servers[0].sockets[0].getsockname()[1]
    host = ANY_HOST.get(settings.host, settings.host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _example(address: str, settings: Settings) -> str:
    body = {
        "model": settings.model_name,
        "messages": [
            {
                "role": "user",
                "content": "Start with 7, add 5, times 3. What are the last two digits?",
            }
        ],
        "max_thinking_tokens": 256,
    }
    return (
        f"  curl {address}/v1/chat/completions -H 'content-type: application/json' \\\n"
        f"    -d '{json.dumps(body)}'"
    )
