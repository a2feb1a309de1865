"""uvicorn's server, with a graceful shutdown."""

import asyncio
import contextlib
import math
import socket
from collections.abc import Callable, Iterator
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from proctor.server.config.settings import Settings
from proctor.server.transport.handover import ConnectionSource
from proctor.server.transport.http_protocol import make_http

KEEP_ALIVE_SECONDS = 75
"""The keep-alive timeout. It exceeds the minute after which load balancers and clients close idle
connections, so that the server does not close one at the moment when they reuse it."""

FLUSH_SECONDS = 1.0
"""The time to send the rest of each response; a client that has not read it by then is not
reading."""

LAST_SECONDS = 5.0
"""The time for anything else that a request then waits for, such as a database."""


class Server(uvicorn.Server):
    """A server with a `running` event and a graceful shutdown.

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
        self.running = asyncio.Event()
        self._source: ConnectionSource | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self._grace_skipped = asyncio.Event()
        self._end_responses = end_responses
        self._grace = grace

    def stop(self) -> None:
        """Shut down gracefully; called again, skip the grace period."""
        if self.should_exit:
            self._grace_skipped.set()
        elif self._source is not None:
            self._take(self._source)
        self.should_exit = True

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    def receive(self, source: ConnectionSource) -> None:
        """Serve the connections of a source, after a start without sockets: `serve([])`."""
        self._source = source
        asyncio.get_running_loop().add_reader(source.fileno(), self._take, source)

    def _take(self, source: ConnectionSource) -> None:
        make_protocol: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        protocol = partial(
            make_protocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        for connection in source.take():
            task = asyncio.create_task(self._connect(protocol, connection, source))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(
        self,
        protocol: Callable[[], asyncio.Protocol],
        connection: socket.socket,
        source: ConnectionSource,
    ) -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(protocol, connection)
        except OSError:  # the client has disconnected
            connection.close()
            source.report_closed()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals: they are handled for all servers of the process."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.running.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._source is not None:
            asyncio.get_running_loop().remove_reader(self._source.fileno())
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


def main_config(
    app: ASGIApp, settings: Settings, on_close: Callable[[], None] = lambda: None
) -> uvicorn.Config:
    """Return the configuration of the server of the API.

    Args:
        app: the application.
        settings: the settings.
        on_close: called whenever a connection is closed.
    """
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=make_http(settings.limits.send_timeout_seconds, on_close),
        ws="none",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        # Responses end by themselves at the end of the grace period; this bounds all the rest.
        timeout_graceful_shutdown=math.ceil(
            settings.limits.shutdown_grace_seconds + FLUSH_SECONDS + LAST_SECONDS + 1
        ),
    )


def admin_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """Return the configuration of the server of the metrics on `auth.admin_port`."""
    return uvicorn.Config(
        app,
        host=settings.auth.admin_host,
        port=settings.auth.admin_port or 0,
        http=make_http(settings.limits.send_timeout_seconds),
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
