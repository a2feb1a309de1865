"""Division of the engine's busy time among the choices that run at the same time."""

import time
from collections.abc import Callable
from decimal import Decimal


class BusyClock:
    """A clock that advances at 1/n of real time while n choices are in the engine, else not at all.

    A choice's share of the engine's time is the difference between the readings when it
    leaves and when it enters: at each instant the time is divided equally among the
    running choices, so that all shares add up to the busy time.
    """

    def __init__(self, now: Callable[[], int] = time.monotonic_ns) -> None:
        """Initialize the clock of an idle engine.

        Args:
            now: returns the time in nanoseconds.
        """
        self._now = now
        self._last_read = now()
        self._running = 0
        self._reading = Decimal()

    def enter(self) -> Decimal:
        """Count a choice that enters the engine, and return the reading in nanoseconds."""
        reading = self.read()
        self._running += 1
        return reading

    def leave(self) -> Decimal:
        """Count a choice that leaves the engine, and return the reading in nanoseconds."""
        reading = self.read()
        self._running -= 1
        return reading

    def read(self) -> Decimal:
        """Return the reading in nanoseconds."""
        now = self._now()
        if self._running:
            self._reading += Decimal(now - self._last_read) / self._running
        self._last_read = now
        return self._reading
