"""Supervises the workers: starts them behind one port, starts them again, and stops them."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Sequence
from functools import partial
from tempfile import TemporaryDirectory

from uvicorn.config import STARTUP_FAILURE

from proctor.server.cli.prepare import prepare_to_serve
from proctor.server.cli.terminal import PROGRESS_SECONDS, Terminal, is_debugging
from proctor.server.cli.workers.process import WorkerProcess
from proctor.server.cli.workers.setup import Progress, WorkerSetup, share_settings
from proctor.server.config.settings import Settings
from proctor.server.telemetry.shared_metrics import forget_worker
from proctor.server.transport.handover import Balancer

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
"""The upper bound of the pause before a worker is started again, which doubles each time. A worker
that ran for longer than this resets it."""


def serve_workers(settings: Settings) -> int:
    """Serve in several processes until a signal is received, and return the exit status.

    Raises:
        ConfigError: if a setting cannot be used.
    """
    prepare_to_serve(settings)
    with TemporaryDirectory(prefix="proctor-metrics-") as folder:
        return asyncio.run(_serve(settings, folder))


async def _serve(settings: Settings, metrics_folder: str) -> int:
    auth = settings.auth
    try:
        main = await _bind(settings.host, settings.port)
        admin = [] if auth.admin_port is None else await _bind(auth.admin_host, auth.admin_port)
    except OSError as error:
        print(f"proctor: {error.strerror or error}", file=sys.stderr)
        return STARTUP_FAILURE
    return await Supervisor(settings, main, admin, metrics_folder).run(Terminal(settings))


async def _bind(host: str, port: int) -> list[socket.socket]:
    """Bind to all addresses of a host, without listening.

    Raises:
        OSError: if an address cannot be bound to.
    """
    server = await asyncio.get_running_loop().create_server(
        asyncio.Protocol, host, port, start_serving=False
    )
    bound = [each.dup() for each in server.sockets]
    server.close()
    return bound


class Supervisor:
    """The supervisor of the workers: accepts connections, which it hands over to them."""

    def __init__(
        self,
        settings: Settings,
        main: Sequence[socket.socket],
        admin: Sequence[socket.socket],
        metrics_folder: str,
    ) -> None:
        """Initialize the supervisor.

        Args:
            settings: the settings of the server.
            main: the sockets of the API, bound to their addresses.
            admin: the sockets of the separate port for metrics.
            metrics_folder: an empty folder for the metrics.
        """
        self._settings = share_settings(settings)
        self._balancer = Balancer(main)
        self._port: int = main[0].getsockname()[1]
        self._admin = admin
        self._metrics_folder = metrics_folder
        self._workers: dict[int, WorkerProcess] = {}
        self._stopping = asyncio.Event()
        self._listening = asyncio.Event()
        self._first_ready = asyncio.Event()
        self._all_ready = asyncio.Event()
        self._ready_slots: set[int] = set()

    async def run(self, terminal: Terminal) -> int:
        """Run the workers until the terminal stops them, and return the exit status.

        The first is started alone. What is wrong with the settings, the model or the engine is
        therefore reported once, and ends the server.
        """
        with terminal.attach(self._stop):
            announcing = asyncio.create_task(self._announce(terminal))
            try:
                ended = asyncio.create_task(self._run(0))
                ready = asyncio.create_task(self._first_ready.wait())
                await asyncio.wait({ended, ready}, return_when=asyncio.FIRST_COMPLETED)
                ready.cancel()
                if ended.done():
                    return 0 if self._stopping.is_set() else _exit_status(ended.result())
                others = map(self._keep, range(1, len(self._settings)))
                statuses = await asyncio.gather(self._keep(0, ended), *others)
                return max(map(_exit_status, statuses))
            finally:
                announcing.cancel()

    def _stop(self) -> None:
        """Stop all workers gracefully; called again, skip their grace period."""
        self._stopping.set()
        self._balancer.close()
        for each in self._admin:
            each.close()  # or connections would wait for being accepted
        for worker in self._workers.values():
            worker.stop()

    async def _keep(self, slot: int, ended: Awaitable[int] | None = None) -> int:
        """Run a worker, and start it again until the supervisor stops.

        Returns the exit status of a process that the supervisor has stopped, or else 0.

        Args:
            slot: the number of the worker.
            ended: waits for the exit status of its process, if it has been started.
        """
        pause = FIRST_PAUSE_SECONDS
        began = time.monotonic()
        while not self._stopping.is_set():
            status = await (ended or self._run(slot))
            if self._stopping.is_set():
                return status
            if time.monotonic() - began > LONGEST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            logger.error(
                "Worker %d %s; it is started again in %g s", slot, _describe(status), pause
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            began, ended = time.monotonic(), None
        return 0

    async def _run(self, slot: int) -> int:
        """Run the process of a worker, and return its exit status."""
        channel, theirs = socket.socketpair()
        setup = WorkerSetup(
            slot=slot,
            settings=self._settings[slot],
            supervisor=os.getpid(),
            connections=theirs.fileno(),
            admin=tuple(each.fileno() for each in self._admin),
            at_once=not self._workers,
            metrics_folder=self._metrics_folder,
            debug=is_debugging(),
        )
        with channel:
            with theirs:
                worker = await WorkerProcess.start(setup, partial(self._note, slot, channel))
            self._workers[slot] = worker
            if self._stopping.is_set():
                worker.stop()
            status = await worker.wait()
            self._balancer.remove(channel)
        forget_worker(self._metrics_folder, slot)
        return status

    def _note(self, slot: int, channel: socket.socket, progress: Progress) -> None:
        if progress is Progress.RECEIVING:
            self._balancer.add(channel)
            self._listening.set()
        elif progress is Progress.READY:
            self._first_ready.set()
            self._ready_slots.add(slot)
            if len(self._ready_slots) == len(self._settings):
                self._all_ready.set()

    async def _announce(self, terminal: Terminal) -> None:
        """Show the progress of the start."""
        await self._listening.wait()
        terminal.listening(self._port)
        while not self._all_ready.is_set():
            try:
                async with asyncio.timeout(PROGRESS_SECONDS):
                    await self._all_ready.wait()
            except TimeoutError:
                terminal.loading()
        terminal.ready()


def _exit_status(status: int) -> int:
    """Return an exit status as shells do: 128 plus the number of the signal that killed it."""
    return status if status >= 0 else 128 - status


def _describe(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"exited with {status}"
