"""The command `proctor serve`: runs the server, from startup to graceful shutdown."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from socket import socket
from typing import Protocol

from proctor.server.app import create_app
from proctor.server.cli.http_server import Server, admin_config, main_config
from proctor.server.cli.prepare import prepare_to_serve
from proctor.server.cli.terminal import PROGRESS_SECONDS, Terminal
from proctor.server.config.settings import Settings
from proctor.server.engines.factory import load_engine
from proctor.server.engines.processes.engine_processes import end_engines
from proctor.server.engines.processes.reaper import reaping
from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.transport.handover import ConnectionSource


class Operator(Protocol):
    """Starts and stops the server, and is informed of its progress."""

    def attach(self, stop: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `stop`, which may be repeated, when the server shall shut down."""

    def listening(self, port: int) -> None: ...

    def receiving(self) -> None:
        """Be informed that connections can be handed over to this process."""

    def loading(self) -> None:
        """Be informed every `PROGRESS_SECONDS` that the engine still loads."""

    def ready(self) -> None: ...

    def failed(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Handover:
    """What a process gets its connections from, if another one accepts them.

    Attributes:
        source: the connections to the API.
        admin: sockets of the separate port for metrics, on which all processes listen.
        at_once: whether to take connections while the engine loads. If other processes serve
            already, they had better get them.
    """

    source: ConnectionSource
    admin: tuple[socket, ...]
    at_once: bool


def serve(settings: Settings) -> int:
    """Serve until a signal is received, and return the exit status.

    Raises:
        ConfigError: if a setting cannot be used.
    """
    prepare_to_serve(settings)
    return run(settings, Terminal(settings))


def run(settings: Settings, operator: Operator, handover: Handover | None = None) -> int:
    """Serve in this process until the operator ends it, and return the exit status.

    Args:
        settings: the settings.
        operator: starts and stops the server.
        handover: what to get connections from; None listens on the addresses of the settings.

    Raises:
        ConfigError: if a setting names something that is not installed.
    """
    app = create_app(settings, partial(load_engine, settings))
    end_responses = app.state.task_pools.end
    grace = settings.limits.shutdown_grace_seconds
    on_close = (lambda: None) if handover is None else handover.source.report_closed
    servers = [Server(main_config(app, settings, on_close), end_responses, grace)]
    if settings.auth.admin_port is not None:
        standalone_app = app.state.metrics_endpoint.standalone_app()
        servers.append(Server(admin_config(standalone_app, settings)))
    supervisor: EngineSupervisor = app.state.supervisor
    with reaping():
        try:
            loop_factory = servers[0].config.get_loop_factory()
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                return runner.run(_run(servers, supervisor, operator, handover))
        finally:
            end_engines(supervisor.loader)


async def _run(
    servers: Sequence[Server],
    supervisor: EngineSupervisor,
    operator: Operator,
    handover: Handover | None,
) -> int:
    def stop() -> None:
        for server in servers:
            server.stop()

    with operator.attach(stop):
        serving = [
            asyncio.create_task(server.serve(listeners))
            for server, listeners in zip(servers, _listeners(servers, handover), strict=True)
        ]
        announcing = asyncio.create_task(_announce(servers[0], supervisor, operator, handover))
        await asyncio.wait({*serving, announcing}, return_when=asyncio.FIRST_COMPLETED)
        failed = announcing.done() and not announcing.result()
        if failed or any(task.done() for task in serving):
            for server in servers:
                server.should_exit = True
        announcing.cancel()
        await asyncio.gather(*serving)
        return 1 if failed else 0


def _listeners(
    servers: Sequence[Server], handover: Handover | None
) -> Sequence[list[socket] | None]:
    """Return the sockets that each server listens on; None lets it bind to its address."""
    if handover is None:
        return [None] * len(servers)
    return [[], [*handover.admin]][: len(servers)]


async def _announce(
    server: Server,
    supervisor: EngineSupervisor,
    operator: Operator,
    handover: Handover | None,
) -> bool:
    """Report the progress of loading the engine, and return False if it failed to load."""
    await server.running.wait()
    if server.should_exit:  # stopped before it listened
        return True
    if handover is None or handover.at_once:
        _open(server, operator, handover)
    loading = asyncio.ensure_future(supervisor.loaded())
    while not (await asyncio.wait({loading}, timeout=PROGRESS_SECONDS))[0]:
        operator.loading()
    if loading.cancelled():  # the server is shutting down
        return True
    if loading.exception() is not None:
        operator.failed()
        return False
    if handover is not None and not handover.at_once:
        _open(server, operator, handover)
    operator.ready()
    return True


def _open(server: Server, operator: Operator, handover: Handover | None) -> None:
    """Report that the server accepts connections, or begin to get them from another process."""
    if handover is None:
        operator.listening(server.port)
    else:
        server.receive(handover.source)
        operator.receiving()
