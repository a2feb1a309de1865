"""The loop of a process that has all of vLLM loaded, and forks a child for each grammar.

A child is ended when it is over its limits or nobody waits for it any more, and
takes all that it holds with it.
"""

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable

from proctor.server.engines.grammars.frames import Answer, send

BEGIN = b"b"


class Forking:
    """The loop of that process: one thread, so that a fork is safe."""

    def __init__(self, control: socket.socket, work: Callable[[socket.socket], None]) -> None:
        """Begin with no child.

        Args:
            control: hands over a connection for each child, and has its end when all is over.
            work: what a child does with its connection.
        """
        self._control = control
        self._work = work
        self._children: dict[int, socket.socket] = {}
        self._poll = select.poll()

    def run(self) -> None:
        """Fork until there is nobody left to fork for."""
        awake, wake = os.pipe2(os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake)
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(awake, select.POLLIN)
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == awake:
                    os.read(awake, 4096)
                elif descriptor != self._control.fileno():
                    self._kill(descriptor)
                elif not self._begin():
                    return self._kill_all()
            self._reap()

    def _begin(self) -> bool:
        told, descriptors, _, _ = socket.recv_fds(self._control, len(BEGIN), 1)
        if not told:
            return False
        connection = socket.socket(fileno=descriptors[0])
        child = os.fork()
        if child == 0:
            self._be_child(connection)
        self._children[child] = connection
        # No event but the end of the other side, which poll always tells.
        self._poll.register(connection, 0)
        return True

    def _be_child(self, connection: socket.socket) -> None:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            for other in self._children.values():
                other.close()
            self._work(connection)
            status = 0
        finally:
            os._exit(status)

    def _kill(self, descriptor: int) -> None:
        """Nobody waits for this one any more."""
        self._poll.unregister(descriptor)
        for child, connection in self._children.items():
            if connection.fileno() == descriptor:
                os.kill(child, signal.SIGKILL)

    def _kill_all(self) -> None:
        for child in self._children:
            os.kill(child, signal.SIGKILL)

    def _reap(self) -> None:
        for child, connection in [*self._children.items()]:
            reaped, status = os.waitpid(child, os.WNOHANG)
            if not reaped:
                continue
            if status:
                with contextlib.suppress(OSError):
                    send(connection, _what_ended(os.waitstatus_to_exitcode(status)))
            with contextlib.suppress(KeyError):  # it was killed, and is let go already
                self._poll.unregister(connection)
            connection.close()
            del self._children[child]


def _what_ended(code: int) -> Answer:
    """Why a child has no answer of its own, by how it ended."""
    match -code:
        case signal.SIGPROF:
            return Answer(out_of="time")
        case signal.SIGABRT | signal.SIGKILL:
            return Answer(out_of="memory")
        case _:
            return Answer(refused="no grammar can be made of it")


def hang_up(connection: socket.socket) -> None:
    """Close a connection, whatever other process was forked with it open."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
