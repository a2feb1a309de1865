"""The fork server: a process with vLLM loaded that forks a child for each grammar check.

A child is killed when it exceeds its limits or nothing waits for its result any more. Its memory
is freed with it.
"""

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable

from proctor.server.engines.grammars.frames import CheckResult, send

FORK = b"b"


class ForkServer:
    """The loop of the fork server. The process has a single thread, so that forking is safe."""

    def __init__(self, control: socket.socket, work: Callable[[socket.socket], None]) -> None:
        """Create a fork server without children.

        Args:
            control: receives one connection for each child; the loop ends at its EOF.
            work: runs in the child, with its connection.
        """
        self._control = control
        self._work = work
        self._children: dict[int, socket.socket] = {}
        self._poll = select.poll()

    def run(self) -> None:
        """Run until the control connection is closed."""
        # SIGCHLD wakes the poll up through a pipe.
        wakeup_read, wakeup_write = os.pipe2(os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup_write)
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(wakeup_read, select.POLLIN)
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == wakeup_read:
                    os.read(wakeup_read, 4096)
                elif descriptor != self._control.fileno():
                    self._kill(descriptor)
                elif not self._fork():
                    return self._kill_all()
            self._reap()

    def _fork(self) -> bool:
        """Fork a child for the next connection; return False at the end of the control channel."""
        message, descriptors, _, _ = socket.recv_fds(self._control, len(FORK), 1)
        if not message:
            return False
        connection = socket.socket(fileno=descriptors[0])
        child = os.fork()
        if child == 0:
            self._run_child(connection)
        self._children[child] = connection
        # Without an event mask, poll still reports that the other side has hung up.
        self._poll.register(connection, 0)
        return True

    def _run_child(self, connection: socket.socket) -> None:
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
        """Kill the child whose connection was closed."""
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
                    send(connection, _result_of(os.waitstatus_to_exitcode(status)))
            with contextlib.suppress(KeyError):  # `_kill` has unregistered it already
                self._poll.unregister(connection)
            connection.close()
            del self._children[child]


def _result_of(code: int) -> CheckResult:
    """Return the result of a child that ended without sending one, by its exit code."""
    match -code:
        case signal.SIGPROF:
            return CheckResult(exceeded="time")
        case signal.SIGABRT | signal.SIGKILL:
            return CheckResult(exceeded="memory")
        case _:
            return CheckResult(refused="it cannot be compiled to a grammar")


def shut_down_and_close(connection: socket.socket) -> None:
    """Close a connection, even if another process was forked while it was open."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
