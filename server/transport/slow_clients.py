"""Sends answers, and lets go of clients that do not take theirs."""

import asyncio
import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_UNTAKEN = 64 * 2**20
"""Bytes that may wait for all clients together, before the slowest of them are let go."""

UNDISTURBED_SECONDS = 5.0
"""Nobody is let go who has not been slow for that long."""

LOOK_SECONDS = 1.0
"""Between two looks at what the clients have taken."""


@dataclass(slots=True)
class Pace:
    """How fast a client takes what waits for it.

    Attributes:
        since: when it began to wait.
        taken_before: bytes that the client had taken until then.
        taken: bytes that it had taken at the last look.
        moved: when it had last taken any.
    """

    since: float
    taken_before: int
    taken: int
    moved: float

    def seconds_left(self, waiting: int, now: float) -> float:
        """How long the rest will wait, going by how long it took until now."""
        taken = self.taken - self.taken_before
        return waiting * (now - self.since) / taken if taken else math.inf


class SlowClients:
    """Watches the connections on which answers wait for their clients; one for a server.

    What is written to a connection waits in memory until its client takes it, and an
    answer is not held up by that. Let go is a client that takes nothing for long, and,
    where too much waits in all, whoever would need the longest for the rest.
    """

    def __init__(self, seconds: float) -> None:
        """Begin with none.

        Args:
            seconds: in which a client must take something; one that will have taken all
                within that time may go on in any case.
        """
        self._seconds = seconds
        self._paces: dict[ClientTransport, Pace] = {}
        self._alarm: asyncio.TimerHandle | None = None

    def add(self, transport: "ClientTransport") -> None:
        """Watch a connection that was written to, until all of that is taken."""
        if transport in self._paces:
            return
        loop = asyncio.get_running_loop()
        now, taken = loop.time(), transport.taken
        self._paces[transport] = Pace(now, taken, taken, now)
        if self._alarm is None:
            self._alarm = loop.call_later(LOOK_SECONDS, self._look)

    def discard(self, transport: "ClientTransport") -> None:
        """Watch a connection no more."""
        self._paces.pop(transport, None)
        if not self._paces and self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._alarm = loop.call_later(LOOK_SECONDS, self._look)
        for transport, pace in [*self._paces.items()]:
            if not transport.waiting:
                self.discard(transport)
            elif transport.taken > pace.taken:
                pace.taken, pace.moved = transport.taken, now
            elif now - pace.moved >= self._seconds:
                self._let_go(transport)
        self._make_room(now)

    def _make_room(self, now: float) -> None:
        too_much = sum(transport.waiting for transport in self._paces) - MAX_UNTAKEN
        if too_much <= 0:
            return
        slow = {
            transport: left
            for transport, pace in self._paces.items()
            if now - pace.since >= UNDISTURBED_SECONDS
            and (left := pace.seconds_left(transport.waiting, now)) > self._seconds
        }
        for transport in sorted(slow, key=lambda each: (slow[each], each.waiting), reverse=True):
            too_much -= transport.waiting
            self._let_go(transport)
            if too_much <= 0:
                return

    def _let_go(self, transport: "ClientTransport") -> None:
        self.discard(transport)
        transport.abort()


class ClientTransport(asyncio.Transport):
    """A transport that asks its protocol how to close, and knows what its client has taken."""

    def __init__(
        self, transport: asyncio.Transport, slow: SlowClients, close: Callable[[], None]
    ) -> None:
        """Stand before a transport.

        Args:
            transport: the connection's own.
            slow: watches it while something waits in it.
            close: closes the connection; called once.
        """
        self._transport = transport
        self._slow = slow
        self._close = close
        self._closing = False
        self._written = 0

    @property
    def waiting(self) -> int:
        """Bytes that were written and not yet taken."""
        return self._transport.get_write_buffer_size()

    @property
    def taken(self) -> int:
        """Bytes that were written and taken, as far as this end can know."""
        return self._written - self.waiting

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See asyncio."""
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """See asyncio. Nothing more is answered then, though what comes may be read."""
        return self._closing or self._transport.is_closing()

    def pause_reading(self) -> None:
        """See asyncio."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """See asyncio."""
        self._transport.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See asyncio."""
        self._written += len(data)
        self._transport.write(data)
        self._slow.add(self)

    def write_eof(self) -> None:
        """See asyncio."""
        if not self._transport.is_closing():
            with contextlib.suppress(OSError):  # it was reset, which is not known yet
                self._transport.write_eof()

    def close(self) -> None:
        """Close in the protocol's way."""
        if not self.is_closing():
            self._closing = True
            self._close()

    def end(self) -> None:
        """Close once what was written has been taken, whatever still comes."""
        self._transport.close()

    def abort(self) -> None:
        """See asyncio."""
        self._transport.abort()
