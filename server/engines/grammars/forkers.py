"""The process that forks, with what its children do, and how it is reached."""

import gc
import multiprocessing
import signal
import socket
from typing import Any

from proctor.server.engines.grammars.forking import BEGIN, Forking, hang_up
from proctor.server.engines.grammars.trial import Trial
from proctor.server.engines.processes.engine_processes import interrupts_blocked

SPAWN = multiprocessing.get_context("spawn")
READY = b"r"
FAREWELL_SECONDS = 5.0


def serve(control: socket.socket, config: Any) -> None:
    """Run in the process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    trial = Trial(config)
    gc.freeze()  # or else a collection in a child copies all that they share
    control.sendall(READY)
    Forking(control, trial.run).run()


class Forkers:
    """Such a process, from the outside."""

    def __init__(self, config: Any) -> None:
        """Start it; `wait` until it can be used."""
        self._control, theirs = socket.socketpair()
        self._process = SPAWN.Process(
            target=serve, args=(theirs, config), name="grammars", daemon=True
        )
        with interrupts_blocked():  # whoever started it ends it
            self._process.start()
        theirs.close()

    def wait(self) -> None:
        """Block until it can fork.

        Raises:
            RuntimeError: if it never will.
        """
        if self._control.recv(len(READY)) != READY:
            raise RuntimeError("the process that compiles grammars did not start")

    def begin(self) -> socket.socket:
        """A connection to a new child; closing it ends the child.

        Raises:
            OSError: if the process is gone.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [BEGIN], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return ours

    def close(self) -> None:
        """End it, and its children."""
        hang_up(self._control)
        self._process.join(FAREWELL_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
