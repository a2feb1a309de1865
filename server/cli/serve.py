"""The command `proctor serve`: runs the server, from startup to graceful shutdown."""

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
from proctor.server.cli.address import url_of
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import Settings
from proctor.server.engines.factory import load_engine
from proctor.server.engines.processes.engine_processes import end_engines
from proctor.server.engines.processes.reaper import reaping
from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.transport.http_protocol import make_http

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 10
KEEP_ALIVE_SECONDS = 75
"""The keep-alive timeout. It exceeds the minute after which load balancers and clients close idle
connections, so that the server does not close one at the moment when they reuse it."""

FLUSH_SECONDS = 1.0
"""The time to send the rest of each response; a client that has not read it by then is not
reading."""

LAST_SECONDS = 5.0
"""The time for anything else that a request then waits for, such as a database."""


def serve(settings: Settings) -> int:
    """Serve until a signal is received, and return the exit status.

    Raises:
        ConfigError: if a setting names something that is not installed.
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
        # Responses end by themselves at the end of the grace period; this bounds all the rest.
        timeout_graceful_shutdown=math.ceil(grace + FLUSH_SECONDS + LAST_SECONDS + 1),
    )
    servers = [Server(config, app.state.task_pool.end, grace)]
    if settings.auth.admin_port is not None:
        servers.append(Server(_admin_config(settings, app.state.metrics_endpoint.standalone_app())))
    supervisor: EngineSupervisor = app.state.supervisor
    with reaping():
        try:
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                return runner.run(_run(servers, supervisor, settings))
        finally:
            end_engines(supervisor.loader)


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
    """A server with a `listening` event and a graceful shutdown.

    uvicorn's own handler cancels everything at a second Ctrl-C, and does not wait for the
    lifespan: streams would lack their last event, and the ledger its rows.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        end_responses: Callable[[], None] = lambda: None,
        grace: float = 0,
    ) -> None:
        """Initialize the server; it does not listen yet.

        Args:
            config: uvicorn's configuration.
            end_responses: ends the responses in progress.
            grace: the time in seconds between `stop` and `end_responses`.
        """
        super().__init__(config)
        self.listening = asyncio.Event()
        self._grace_skipped = asyncio.Event()
        self._end_responses = end_responses
        self._grace = grace

    def stop(self) -> None:
        """Shut down gracefully; called again, skip the grace period."""
        if self.should_exit:
            self._grace_skipped.set()
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals: `_run` handles them for all servers of the process."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ending = asyncio.create_task(self._end_after_grace())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()

    async def _end_after_grace(self) -> None:
        """End responses after the grace period, and disconnect clients that do not read the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                await self._grace_skipped.wait()
        self._end_responses()
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
    """Migrate the ledger. The server starts even if the database is unavailable.

    Raises:
        ConfigError: if the ledger cannot be used.
    """
    if not ledger:
        return
    try:
        asyncio.run(prepare(ledger))
    except OSError as error:
        logger.warning("%s; rows are written later", error)


def _check_keys(settings: Settings) -> None:
    """Check that a server on a public address has a key, or that `auth.required` is set.

    Raises:
        ConfigError: if it has no key and the setting is missing.
    """
    if settings.auth.required is not None or not settings.asks_for_keys or settings.keys:
        return
    if not asyncio.run(has_keys(settings.ledger)):
        raise ConfigError(
            f"host: The public address {settings.host} requires an API key. Create one with "
            "'proctor keys create NAME', set auth.required = true to create one later, or set "
            "auth.required = false to disable authentication"
        )


def _on_signals(handler: Callable[..., object] | signal.Handlers) -> None:
    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)


def _exit(*_: object) -> NoReturn:
    raise SystemExit(0)


async def _run(servers: Sequence[Server], supervisor: EngineSupervisor, settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    # The handlers of the event loop would be removed with it, before the engine has ended.
    _on_signals(lambda *_: loop.call_soon_threadsafe(_stop, servers))
    try:
        return await _serve(servers, supervisor, settings)
    finally:
        _on_signals(signal.SIG_IGN)  # shutdown is under way


def _stop(servers: Sequence[Server]) -> None:
    for server in servers:
        server.stop()


async def _serve(
    servers: Sequence[Server], supervisor: EngineSupervisor, settings: Settings
) -> int:
    serving = [asyncio.create_task(server.serve()) for server in servers]
    announcing = asyncio.create_task(_announce(servers[0], supervisor, settings))
    await asyncio.wait({*serving, announcing}, return_when=asyncio.FIRST_COMPLETED)
    failed = announcing.done() and not announcing.result()
    if failed or any(task.done() for task in serving):
        for server in servers:
            server.should_exit = True
    announcing.cancel()
    await asyncio.gather(*serving)
    return 1 if failed else 0


async def _announce(server: Server, supervisor: EngineSupervisor, settings: Settings) -> bool:
    """Print the progress of loading the engine, and return False if it failed to load."""
    await server.listening.wait()
    address = _address(server, settings)
    print(f"Listening on {address}; loading {settings.model_name} ...", flush=True)
    started = time.monotonic()
    loading = asyncio.ensure_future(supervisor.loaded())
    while not (await asyncio.wait({loading}, timeout=PROGRESS_SECONDS))[0]:
        print(f"  still loading, {time.monotonic() - started:.0f} s", flush=True)
    if loading.cancelled():  # the server is shutting down
        return True
    if loading.exception() is not None:
        print(f"proctor: {settings.model_name} failed to load", file=sys.stderr)
        return False
    print(
        f"Ready after {time.monotonic() - started:.0f} s. Try:\n\n{_example(address, settings)}\n"
    )
    sys.stdout.flush()
    return True


def _address(server: Server, settings: Settings) -> str:
    port = server.servers[0].sockets[0].getsockname()[1]
    return url_of(settings.host, port)


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
