"""Shares of the engine's busy time."""

import time
from collections.abc import Callable
from decimal import Decimal


class BusyClock:
    """Runs at 1/n of the speed of time while n choices are in the engine, and stands when none is.

    What it advances between a choice's way in and its way out is that choice's
    share of the engine's time: at each instant the time is divided equally
    among those that run, so that the shares of all add up to the busy time.
    """

    def __init__(self, now: Callable[[], int] = time.monotonic_ns) -> None:
        """Begin with an idle engine.

        Args:
            now: the time in nanoseconds.
        """
        self._now = now
        self._at = now()
        self._running = 0
        self._share = Decimal()

    def enter(self) -> Decimal:
        """A choice enters the engine; what the clock shows, in nanoseconds."""
        share = self.read()
        self._running += 1
        return share

    def leave(self) -> Decimal:
        """A choice leaves it; what the clock shows."""
        share = self.read()
        self._running -= 1
        return share

    def read(self) -> Decimal:
        """What the clock shows."""
        now = self._now()
        if self._running:
            self._share += Decimal(now - self._at) / self._running
        self._at = now
        return self._share
