"""Hands connections over: one process accepts them, others serve them.

Processes that accept from the same socket, or from sockets with `SO_REUSEPORT`, get connections by
chance. Here each goes to the process that has the fewest open ones.
"""

import asyncio
import contextlib
import itertools
import logging
import socket
from collections.abc import Iterator, Sequence

logger = logging.getLogger(__name__)

BACKLOG = 2048
"""The maximum number of connections that wait to be accepted, as uvicorn has it."""

ACCEPTED_PER_TURN = 64
"""The maximum number of connections that are accepted in one turn of the event loop."""

PAUSE_SECONDS = 1.0
"""The pause after an error of `accept`, such as too many open files, which would repeat at once."""

HANDED_OVER = b"c"
"""Sent with each connection."""

CLOSED = b"x"
"""Sent back when a connection was closed, once for each."""

MAX_REPORTED = 4096
"""The maximum number of bytes that are read at once."""


class Recipient:
    """A process that gets connections, as the balancer sees it.

    Attributes:
        channel: a Unix socket whose other end the process has.
        open: the number of its open connections.
        turn: when it got the last one; a number that increases.
    """

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.open = 0
        self.turn = 0


class Balancer:
    """Accepts connections, and hands each over to the recipient with the fewest open ones.

    While there are no recipients, connections wait in the backlog of their socket.
    """

    def __init__(self, listeners: Sequence[socket.socket]) -> None:
        """Initialize the balancer; it listens once it has a recipient.

        Args:
            listeners: sockets that are bound to their addresses.
        """
        self._listeners = listeners
        self._recipients: list[Recipient] = []
        self._turns = itertools.count()
        self._loop = asyncio.get_running_loop()
        self._is_closed = False

    def add(self, channel: socket.socket) -> None:
        """Add a recipient.

        Args:
            channel: a Unix socket whose other end the process has.
        """
        channel.setblocking(False)
        recipient = Recipient(channel)
        self._recipients.append(recipient)
        self._loop.add_reader(channel, self._note_closed, recipient)
        if len(self._recipients) == 1:
            self._listen()

    def remove(self, channel: socket.socket) -> None:
        """Remove the recipient with this channel, if it has not ended before."""
        for recipient in self._recipients:
            if recipient.channel is channel:
                self._loop.remove_reader(channel)
                self._recipients.remove(recipient)
                if not self._recipients:
                    self._pause()
                return

    def close(self) -> None:
        """Accept no more connections."""
        self._is_closed = True
        self._pause()
        for listener in self._listeners:
            listener.close()

    def _listen(self) -> None:
        if self._is_closed or not self._recipients:
            return
        for listener in self._listeners:
            listener.setblocking(False)
            listener.listen(BACKLOG)
            self._loop.add_reader(listener, self._accept, listener)

    def _pause(self) -> None:
        for listener in self._listeners:
            if listener.fileno() >= 0:
                self._loop.remove_reader(listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_PER_TURN):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.error("Connections cannot be accepted: %s", error.strerror)
                self._pause()
                self._loop.call_later(PAUSE_SECONDS, self._listen)
                return
            with connection:
                self._hand_over(connection)

    def _hand_over(self, connection: socket.socket) -> None:
        """Hand a connection over; its copy here can be closed afterwards."""
        for recipient in sorted(self._recipients, key=lambda each: (each.open, each.turn)):
            # Fails if the process is ending, or stopped and its channel full.
            with contextlib.suppress(OSError):
                socket.send_fds(recipient.channel, [HANDED_OVER], [connection.fileno()])
                recipient.open += 1
                recipient.turn = next(self._turns)
                return
        logger.error("A connection was closed, as no worker takes it")

    def _note_closed(self, recipient: Recipient) -> None:
        try:
            closed = recipient.channel.recv(MAX_REPORTED)
        except BlockingIOError:
            return
        except OSError:
            closed = b""
        recipient.open -= len(closed)
        if not closed:  # the process has ended
            self.remove(recipient.channel)


class ConnectionSource:
    """The connections that this process gets from a balancer in another one."""

    def __init__(self, channel: socket.socket) -> None:
        """Initialize the source.

        Args:
            channel: a Unix socket whose other end the balancer has.
        """
        channel.setblocking(False)
        self._channel = channel
        self._unreported = 0

    def fileno(self) -> int:
        """Return the file descriptor, which is readable when there are connections."""
        return self._channel.fileno()

    def take(self) -> Iterator[socket.socket]:
        """Yield the connections that have been handed over."""
        while True:
            try:
                sent, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
            except BlockingIOError:
                return
            if not sent:  # the balancer has ended
                return
            for descriptor in descriptors:
                yield socket.socket(fileno=descriptor)

    def report_closed(self) -> None:
        """Report that one of the connections was closed."""
        self._unreported += 1
        # Fails while the balancer is stopped and the channel full; the next report includes it.
        with contextlib.suppress(OSError):
            self._unreported -= self._channel.send(CLOSED * self._unreported)
