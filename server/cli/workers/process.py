"""One process of a worker, as its supervisor sees it."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe

from proctor.server.cli.workers.setup import Command, Progress, WorkerSetup

COMMAND = (sys.executable, "-P", "-m", "proctor.server.cli.workers.worker")
"""The command that starts a worker, without its argument."""


class WorkerProcess:
    """A running worker.

    Created by `start`.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        connection: Connection,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._process = process
        self._connection = connection
        self._on_progress = on_progress
        self._is_running = False
        self._is_discarded = False
        asyncio.get_running_loop().add_reader(connection.fileno(), self._receive)

    @classmethod
    async def start(
        cls, setup: WorkerSetup, on_progress: Callable[[Progress], None]
    ) -> "WorkerProcess":
        """Start a worker, without waiting until it is ready.

        Args:
            setup: the first message to it.
            on_progress: called with what it reports.
        """
        ours, theirs = Pipe()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *COMMAND,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), setup.connections, *setup.admin),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                process_group=0,  # so that Ctrl-C in a terminal does not reach it
            )
        with contextlib.suppress(OSError):  # it has ended already
            ours.send(setup)
        return cls(process, ours, on_progress)

    def stop(self) -> None:
        """Tell the worker to shut down; told again, it skips the grace period."""
        if self._process.returncode is not None:
            return
        if self._is_running:
            with contextlib.suppress(OSError):  # it is ending
                self._connection.send(Command.STOP)
        else:
            self._is_discarded = True
            self._process.kill()

    async def wait(self) -> int:
        """Wait until the worker has ended, and return its exit status.

        It is 0 for a worker that was stopped before it was running.
        """
        status = await self._process.wait()
        asyncio.get_running_loop().remove_reader(self._connection.fileno())
        self._connection.close()
        return 0 if self._is_discarded else status

    def _receive(self) -> None:
        try:
            progress: Progress = self._connection.recv()
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            return
        self._is_running = True
        self._on_progress(progress)
