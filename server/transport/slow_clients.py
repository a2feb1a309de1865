"""Buffered writes to clients, and the disconnection of clients that stop reading."""

import asyncio
import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_BUFFERED = 64 * 2**20
"""The bytes that may be buffered for all clients together before the slowest are disconnected."""

UNDISTURBED_SECONDS = 5.0
"""The time for which a client must have been slow before it may be disconnected."""

CHECK_SECONDS = 1.0
"""The interval between two checks of what the clients have read."""


@dataclass(slots=True)
class Pace:
    """The speed at which a client reads what is buffered for it.

    Attributes:
        since: when buffering began.
        sent_before: bytes that had been sent by then.
        sent: bytes that had been sent at the last check.
        progressed: when bytes were last sent.
    """

    since: float
    sent_before: int
    sent: int
    progressed: float

    def seconds_left(self, buffered: int, now: float) -> float:
        """Estimate how long the client needs for the rest, from its speed so far."""
        sent = self.sent - self.sent_before
        return buffered * (now - self.since) / sent if sent else math.inf


class SlowClients:
    """Watches the connections that have buffered data; one instance for a server.

    Writes to a connection are buffered in memory until the client reads them, without
    backpressure on the response. Disconnects clients that read nothing for long and, if
    too much is buffered in all, those that would need the longest for the rest.
    """

    def __init__(self, seconds: float) -> None:
        """Initialize with no connections.

        Args:
            seconds: the time after which a client that reads nothing is disconnected;
                a client that will have read everything within it is never disconnected.
        """
        self._seconds = seconds
        self._paces: dict[ClientTransport, Pace] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, transport: "ClientTransport") -> None:
        """Watch a connection that was written to, until everything is sent."""
        if transport in self._paces:
            return
        loop = asyncio.get_running_loop()
        now, sent = loop.time(), transport.sent
        self._paces[transport] = Pace(now, sent, sent, now)
        if self._timer is None:
            self._timer = loop.call_later(CHECK_SECONDS, self._check)

    def discard(self, transport: "ClientTransport") -> None:
        """Stop watching a connection."""
        self._paces.pop(transport, None)
        if not self._paces and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = loop.call_later(CHECK_SECONDS, self._check)
        for transport, pace in [*self._paces.items()]:
            if not transport.buffered:
                self.discard(transport)
            elif transport.sent > pace.sent:
                pace.sent, pace.progressed = transport.sent, now
            elif now - pace.progressed >= self._seconds:
                self._disconnect(transport)
        self._limit_buffered(now)

    def _limit_buffered(self, now: float) -> None:
        excess = sum(transport.buffered for transport in self._paces) - MAX_BUFFERED
        if excess <= 0:
            return
        slow = {
            transport: left
            for transport, pace in self._paces.items()
            if now - pace.since >= UNDISTURBED_SECONDS
            and (left := pace.seconds_left(transport.buffered, now)) > self._seconds
        }
        for transport in sorted(slow, key=lambda each: (slow[each], each.buffered), reverse=True):
            excess -= transport.buffered
            self._disconnect(transport)
            if excess <= 0:
                return

    def _disconnect(self, transport: "ClientTransport") -> None:
        self.discard(transport)
        transport.abort()


class ClientTransport(asyncio.Transport):
    """A transport that counts what the client has read, and delegates closing to its protocol."""

    def __init__(
        self, transport: asyncio.Transport, slow_clients: SlowClients, close: Callable[[], None]
    ) -> None:
        """Wrap a transport.

        Args:
            transport: the transport of the connection.
            slow_clients: watches the connection while data is buffered.
            close: closes the connection; called once.
        """
        self._transport = transport
        self._slow_clients = slow_clients
        self._close = close
        self._closing = False
        self._written = 0

    @property
    def buffered(self) -> int:
        """Bytes that were written and not yet sent."""
        return self._transport.get_write_buffer_size()

    @property
    def sent(self) -> int:
        """Bytes that were written and sent, as far as this end can know."""
        return self._written - self.buffered

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Return whether no further response is sent, although data may still be received."""
        return self._closing or self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._written += len(data)
        self._transport.write(data)
        self._slow_clients.add(self)

    def write_eof(self) -> None:
        if not self._transport.is_closing():
            with contextlib.suppress(OSError):  # the connection was reset, unnoticed so far
                self._transport.write_eof()

    def close(self) -> None:
        """Close the connection in the way of the protocol."""
        if not self.is_closing():
            self._closing = True
            self._close()

    def end(self) -> None:
        """Close the connection once everything written is sent, even if data is still received."""
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()
