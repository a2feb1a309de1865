"""A worker: one of the gateway processes behind a port. Started by the supervisor only."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from socket import socket

from proctor.server.cli.prepare import start_logging
from proctor.server.cli.serve import Handover, run
from proctor.server.cli.terminal import (
    CONFIG_ERROR_STATUS,
    debug,
    failed_to_load,
    on_signals,
    print_config_error,
)
from proctor.server.cli.workers.setup import Progress, WorkerSetup
from proctor.server.config.section import ConfigError
from proctor.server.telemetry.shared_metrics import share_metrics
from proctor.server.transport.handover import ConnectionSource

PR_SET_PDEATHSIG = 1
"""The option of prctl(2) that selects the signal which a process gets when its parent ends."""


class SupervisorConnection:
    """Connects a worker to its supervisor; the `Operator` of its server."""

    def __init__(self, connection: Connection, name: str) -> None:
        """Initialize the connection.

        Args:
            connection: the connection.
            name: the name of the model.
        """
        self._connection = connection
        self._name = name

    @contextmanager
    def attach(self, stop: Callable[[], None]) -> Iterator[None]:
        """Call `stop` for each command of the supervisor; exit at once if it has ended."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._connection.fileno(), self._receive, stop)
        self._connection.send(Progress.RUNNING)
        try:
            yield
        finally:
            loop.remove_reader(self._connection.fileno())

    def listening(self, port: int) -> None:
        """Do nothing: the supervisor listens."""

    def receiving(self) -> None:
        self._connection.send(Progress.RECEIVING)

    def loading(self) -> None:
        """Do nothing: the supervisor knows."""

    def ready(self) -> None:
        self._connection.send(Progress.READY)

    def failed(self) -> None:
        print(failed_to_load(self._name), file=sys.stderr)

    def _receive(self, stop: Callable[[], None]) -> None:
        try:
            self._connection.recv()
        except (EOFError, OSError):
            os.kill(os.getpid(), signal.SIGKILL)
        stop()


def main() -> int:
    """Serve until the supervisor says to stop, and return the exit status.

    The argument is the file descriptor of the connection to the supervisor.
    """
    # Sent to the whole group or container, they reach the supervisor too, which tells its workers.
    on_signals(lambda *_: None)
    connection = Connection(int(sys.argv[1]))
    setup: WorkerSetup = connection.recv()
    _end_with(setup.supervisor)
    share_metrics(setup.metrics_folder, setup.slot)
    start_logging()
    if setup.debug:
        debug()
    handover = Handover(
        ConnectionSource(socket(fileno=setup.connections)),
        tuple(socket(fileno=each) for each in setup.admin),
        setup.at_once,
    )
    settings = setup.settings
    try:
        return run(settings, SupervisorConnection(connection, settings.model_name), handover)
    except ConfigError as error:
        print_config_error(error)
        return CONFIG_ERROR_STATUS


def _end_with(supervisor: int) -> None:
    """Let the kernel kill this process when the supervisor ends, even if it is stopped."""
    if sys.platform != "linux":
        return  # the connection ends as well, which a worker notices unless it is stopped
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it ended before
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main())
