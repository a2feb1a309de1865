"""The line in front of the engine: bounded, and fair between those who wait in it."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from proctor.server.errors import Overloaded

MEMORY = 0.1
"""Weight of the newest duration in the mean of them."""

LONGEST_TOLD_SECONDS = 60


@dataclass(eq=False, slots=True)
class Waiter:
    """Somebody's place in the line.

    Attributes:
        size: how many choices want to run.
        admitted: done once they may.
    """

    size: int
    admitted: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class FairQueue:
    """Lets so many choices run at a time, and so many requests wait.

    Those who wait take turns by key, each key's own in the order in which they
    came. A request of several choices waits until all of them can run, and
    nobody overtakes it then: many small ones could keep it waiting for ever.
    """

    def __init__(self, slots: int, most_waiting: int) -> None:
        """Begin with everything free.

        Args:
            slots: most choices at a time.
            most_waiting: most requests in the line.
        """
        self._slots = slots
        self._most_waiting = most_waiting
        self._keys: deque[Hashable] = deque()
        self._waiting: dict[Hashable, deque[Waiter]] = {}
        self._mean_seconds = 1.0
        self.running = 0
        self.waiting = 0

    def check(self) -> None:
        """Return if there is room to wait, or no need to.

        Raises:
            Overloaded: if there is none.
        """
        if self.waiting >= self._most_waiting and self.running >= self._slots:
            told = min(max(1, math.ceil(self.expected_seconds)), LONGEST_TOLD_SECONDS)
            raise Overloaded(
                f"{self.waiting} requests are waiting already: try again in {told} s",
                headers={"retry-after": str(told)},
            )

    @property
    def expected_seconds(self) -> float:
        """How long the last in the line will wait, going by how long choices took."""
        return self._mean_seconds * (1 + self.waiting / self._slots)

    async def enter(self, key: Hashable, size: int) -> float:
        """Wait until `size` choices may run; each of them is to `leave` when it has ended.

        Args:
            key: whose they are.
            size: how many; more than there are slots run when nothing else does.

        Returns:
            When they were let in, to be given to `leave`.

        Raises:
            Overloaded: if there is no room to wait.
        """
        self.check()
        place = Waiter(size)
        if key not in self._waiting:
            self._waiting[key] = deque()
            self._keys.append(key)
        self._waiting[key].append(place)
        self.waiting += 1
        self._admit()
        try:
            # Shielded: between a cancellation and its coming here the place may still be let in.
            await asyncio.shield(place.admitted)
        except asyncio.CancelledError:
            self._give_up(key, place)
            raise
        return time.monotonic()

    def leave(self, since: float) -> None:
        """A choice that was let in at `since` has ended."""
        self._mean_seconds += MEMORY * (time.monotonic() - since - self._mean_seconds)
        self.free(1)

    def free(self, size: int) -> None:
        """Give back so many slots, however long they were taken."""
        self.running -= size
        self._admit()

    def _give_up(self, key: Hashable, place: Waiter) -> None:
        if place.admitted.done():
            self.free(place.size)
            return
        self._waiting[key].remove(place)
        self.waiting -= 1
        self._forget_if_empty(key)
        self._admit()

    def _admit(self) -> None:
        while self._keys:
            key = self._keys[0]
            place = self._waiting[key][0]
            if self.running and self.running + place.size > self._slots:
                return
            self._waiting[key].popleft()
            self._keys.rotate(-1)
            self._forget_if_empty(key)
            self.waiting -= 1
            self.running += place.size
            place.admitted.set_result(None)

    def _forget_if_empty(self, key: Hashable) -> None:
        if not self._waiting[key]:
            del self._waiting[key]
            self._keys.remove(key)
