"""The request queue in front of the engine: bounded, and fair between clients."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from proctor.server.errors import Overloaded

SMOOTHING = 0.1
"""The weight of the newest duration in their exponential moving average."""

MAX_RETRY_AFTER_SECONDS = 60


@dataclass(eq=False, slots=True)
class Waiter:
    """A request in the queue.

    Attributes:
        size: the number of slots that it needs, one per choice.
        admitted: completed when the request is admitted.
    """

    size: int
    admitted: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class FairQueue:
    """Limits the number of running choices and of waiting requests.

    Requests wait in one FIFO queue per key, and the keys are served round-robin. A
    request of several choices waits until all of them can run, and no other request
    overtakes it meanwhile: otherwise, many small ones could starve it.
    """

    def __init__(self, slots: int, max_waiting: int) -> None:
        """Initialize an empty queue.

        Args:
            slots: the maximum number of choices that run at a time.
            max_waiting: the maximum number of requests in the queue.
        """
        self._slots = slots
        self._max_waiting = max_waiting
        self._keys: deque[Hashable] = deque()
        self._waiting: dict[Hashable, deque[Waiter]] = {}
        self._mean_seconds = 1.0
        self.running = 0
        self.waiting = 0

    def check(self) -> None:
        """Check that a request could run at once or wait.

        Raises:
            Overloaded: if the queue is full.
        """
        if self.waiting >= self._max_waiting and self.running >= self._slots:
            seconds = min(max(1, math.ceil(self.expected_seconds)), MAX_RETRY_AFTER_SECONDS)
            raise Overloaded(
                f"The queue is full, with {self.waiting} requests. Try again in {seconds} s.",
                headers={"retry-after": str(seconds)},
            )

    @property
    def waiting_keys(self) -> int:
        """The number of keys that have requests in the queue."""
        return len(self._waiting)

    @property
    def expected_seconds(self) -> float:
        """The estimated wait of the last request in the queue, from recent durations."""
        return self._mean_seconds * (1 + self.waiting / self._slots)

    async def enter(self, key: Hashable, size: int) -> float:
        """Wait until `size` choices may run; call `leave` for each of them when it has ended.

        Args:
            key: the client that the request belongs to.
            size: the number of choices; if it exceeds the number of slots, they run
                when nothing else does.

        Returns:
            The time of admission, to pass to `leave`.

        Raises:
            Overloaded: if the queue is full.
        """
        self.check()
        waiter = Waiter(size)
        if key not in self._waiting:
            self._waiting[key] = deque()
            self._keys.append(key)
        self._waiting[key].append(waiter)
        self.waiting += 1
        self._admit()
        try:
            # Shielded because the waiter may still be admitted between the cancellation and its
            # delivery.
            await asyncio.shield(waiter.admitted)
        except asyncio.CancelledError:
            self._abandon(key, waiter)
            raise
        return time.monotonic()

    def try_enter(self) -> bool:
        """Take a slot if one is free and no request waits; call `release` when it is not needed.

        Returns:
            Whether the slot was taken.
        """
        if self.waiting or self.running >= self._slots:
            return False
        self.running += 1
        return True

    def leave(self, since: float) -> None:
        """Release the slot of a choice that has ended, and record its duration.

        Args:
            since: the time of admission, as returned by `enter`.
        """
        self._mean_seconds += SMOOTHING * (time.monotonic() - since - self._mean_seconds)
        self.release(1)

    def release(self, size: int) -> None:
        """Release slots without recording a duration."""
        self.running -= size
        self._admit()

    def _abandon(self, key: Hashable, waiter: Waiter) -> None:
        if waiter.admitted.done():
            self.release(waiter.size)
            return
        self._waiting[key].remove(waiter)
        self.waiting -= 1
        self._remove_if_empty(key)
        self._admit()

    def _admit(self) -> None:
        while self._keys:
            key = self._keys[0]
            waiter = self._waiting[key][0]
            if self.running and self.running + waiter.size > self._slots:
                return
            self._waiting[key].popleft()
            self._keys.rotate(-1)
            self._remove_if_empty(key)
            self.waiting -= 1
            self.running += waiter.size
            waiter.admitted.set_result(None)

    def _remove_if_empty(self, key: Hashable) -> None:
        if not self._waiting[key]:
            del self._waiting[key]
            self._keys.remove(key)
