"""Runs the server: the start, what it says of itself, and the end."""

import asyncio
import contextlib
import json
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NoReturn

import uvicorn
from starlette.applications import Starlette

from proctor.server.accounting.ledger.service import prepare
from proctor.server.app import create_app
from proctor.server.auth.store import has_keys
from proctor.server.config.settings import ConfigError, Settings
from proctor.server.engines.factory import load_engine
from proctor.server.engines.processes.engine_processes import end_engines
from proctor.server.engines.processes.reaper import reaping
from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.transport.http_protocol import make_http

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 10
KEEP_ALIVE_SECONDS = 75
"""Longer than the minute after which load balancers and clients let go of an idle connection, so
that it is not closed under them in the moment in which they use it again."""

FLUSH_SECONDS = 1.0
"""For the last of every answer to be sent; a client that has not taken it by then does not read."""

LAST_SECONDS = 5.0
"""For whatever else a request waits for then, such as a database."""

ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Addresses that mean every interface, and one that a client can use instead."""


def serve(settings: Settings) -> int:
    """Serve until a signal comes; the exit status.

    Raises:
        BadSettings: if something that they name is not installed.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    _on_signals(_exit)
    _prepare(settings.ledger.url.get_secret_value())
    _check_keys(settings)
    app = create_app(settings, partial(load_engine, settings))
    grace = settings.limits.shutdown_grace_seconds
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=make_http(settings.limits.send_timeout_seconds),
        ws="none",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        # Answers end by themselves at the end of the grace; this is for whatever does not.
        timeout_graceful_shutdown=math.ceil(grace + FLUSH_SECONDS + LAST_SECONDS + 1),
    )
    servers = [Server(config, app.state.task_pool.end, grace)]
    if settings.auth.admin_port is not None:
        servers.append(Server(_admin_config(settings, app.state.metrics_endpoint.standalone_app())))
    host: EngineSupervisor = app.state.supervisor
    with reaping():
        try:
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                return runner.run(_run(servers, host, settings))
        finally:
            end_engines(host.loader)


def _admin_config(settings: Settings, app: Starlette) -> uvicorn.Config:
    auth = settings.auth
    return uvicorn.Config(
        app,
        host=auth.admin_host,
        port=auth.admin_port or 0,
        http=make_http(settings.limits.send_timeout_seconds),
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )


class Server(uvicorn.Server):
    """Says when it listens, and ends its answers when it is told to stop.

    uvicorn's own handler cuts everything at a second Ctrl-C, and does not wait for the
    lifespan then: streams have no last event, and the ledger does not get its rows.
    """

    def __init__(
        self, config: uvicorn.Config, end: Callable[[], None] = lambda: None, grace: float = 0
    ) -> None:
        """Begin, not listening yet.

        Args:
            config: uvicorn's.
            end: ends what is still being answered.
            grace: seconds until then, once it was told to stop.
        """
        super().__init__(config)
        self.listening = asyncio.Event()
        self._hurried = asyncio.Event()
        self._end = end
        self._grace = grace

    def stop(self) -> None:
        """Answer what runs and nothing more; told so again, no longer wait for what runs."""
        if self.should_exit:
            self._hurried.set()
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See uvicorn. Signals are for all servers of the process, see `_run`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        ending = asyncio.create_task(self._end_answers())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()

    async def _end_answers(self) -> None:
        """End them when the grace is over, and let go of clients that do not take the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                await self._hurried.wait()
        self._end()
        await asyncio.sleep(FLUSH_SECONDS)
        for transport in self._transports():
            if transport.get_write_buffer_size():
                transport.abort()
        await asyncio.sleep(LAST_SECONDS)
        for transport in self._transports():
            transport.abort()

    def _transports(self) -> list[asyncio.Transport]:
        return [connection.transport for connection in self.server_state.connections]


def _prepare(ledger: str) -> None:
    """Bring the ledger up to date; a database that is away is no reason not to serve.

    Raises:
        BadSettings: if it can never take rows.
    """
    if not ledger:
        return
    try:
        asyncio.run(prepare(ledger))
    except OSError as error:
        logger.warning("%s: rows wait for it", error)


def _check_keys(settings: Settings) -> None:
    """Return if it is said who is let in, or only this machine can come in.

    Raises:
        BadSettings: if others can, nothing was set, and there is no key.
    """
    if settings.auth.required is not None or not settings.asks_for_keys or settings.keys:
        return
    if not asyncio.run(has_keys(settings.ledger)):
        raise ConfigError(
            f"host: others can reach {settings.host}, and there is no key: make one by 'proctor "
            "keys create NAME', set auth.required = true to make one later, or set "
            "auth.required = false to let everybody in"
        )


def _on_signals(handler: Callable[..., object] | signal.Handlers) -> None:
    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)


def _exit(*_: object) -> NoReturn:
    raise SystemExit(0)


async def _run(servers: Sequence[Server], host: EngineSupervisor, settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    # The loop's own handlers would be gone with it, before the engine is.
    _on_signals(lambda *_: loop.call_soon_threadsafe(_stop, servers))
    try:
        return await _serve(servers, host, settings)
    finally:
        _on_signals(signal.SIG_IGN)  # all is on its way


def _stop(servers: Sequence[Server]) -> None:
    for server in servers:
        server.stop()


async def _serve(servers: Sequence[Server], host: EngineSupervisor, settings: Settings) -> int:
    serving = [asyncio.create_task(server.serve()) for server in servers]
    announcing = asyncio.create_task(_announce(servers[0], host, settings))
    await asyncio.wait({*serving, announcing}, return_when=asyncio.FIRST_COMPLETED)
    failed = announcing.done() and not announcing.result()
    if failed or any(task.done() for task in serving):
        for server in servers:
            server.should_exit = True
    announcing.cancel()
    await asyncio.gather(*serving)
    return 1 if failed else 0


async def _announce(server: Server, host: EngineSupervisor, settings: Settings) -> bool:
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
