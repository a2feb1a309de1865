"""The fork server's process, and the handle by which the gateway uses it."""

import gc
import multiprocessing
import signal
import socket
from typing import Any

from proctor.server.engines.garbage import no_garbage_collection
from proctor.server.engines.grammars.forking import FORK, ForkServer, shut_down_and_close
from proctor.server.engines.processes.engine_processes import interrupts_blocked
from proctor.server.engines.processes.fork_server import fork_context

# A process that is spawned imports this module first, to find `serve`.
with no_garbage_collection():
    from proctor.server.engines.grammars.trial import Trial

SPAWN = multiprocessing.get_context("spawn")
READY = b"r"
EXIT_SECONDS = 5.0


def serve(control: socket.socket, config: Any) -> None:
    """Run the fork server in its process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    trial = Trial(config)
    gc.freeze()  # a garbage collection in a child would copy the pages that it shares
    control.sendall(READY)
    ForkServer(control, trial.run).run()


class ForkServerProcess:
    """A handle of the fork server's process."""

    def __init__(self, config: Any) -> None:
        """Start the process; `wait` blocks until it is ready."""
        self._control, remote = socket.socketpair()
        self._process = (fork_context() or SPAWN).Process(
            target=serve, args=(remote, config), name="grammars", daemon=True
        )
        with interrupts_blocked():  # on Ctrl-C, the gateway ends the process
            self._process.start()
        remote.close()

    @property
    def pid(self) -> int | None:
        """The ID of the process."""
        return self._process.pid

    def wait(self) -> None:
        """Block until the process is ready.

        Raises:
            RuntimeError: if it failed to start.
        """
        if self._control.recv(len(READY)) != READY:
            raise RuntimeError("the process that checks grammars failed to start")

    def fork(self) -> socket.socket:
        """Fork a child and return a connection to it. Closing the connection ends the child.

        Raises:
            OSError: if the process has died.
        """
        local, remote = socket.socketpair()
        with remote:
            try:
                socket.send_fds(self._control, [FORK], [remote.fileno()])
            except OSError:
                local.close()
                raise
        return local

    def close(self) -> None:
        """End the process and its children."""
        shut_down_and_close(self._control)
        self._process.join(EXIT_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
