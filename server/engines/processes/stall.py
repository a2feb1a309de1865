"""Tells an engine that hangs from one that works, by evidence."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

SAMPLES = 16
"""How often an engine that owes an answer is looked at within the time that it may do nothing."""

LEAST_CPU = 0.05
"""Of a core: an engine that hangs takes less, though it still reads what clients send it."""

LEAST_RUNNABLE = 0.25
"""Of the looks: an engine that works finds itself able to run, or running, more often."""


class Stalled(RuntimeError):
    """The engine is to be given up; the message says why."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an engine may owe an answer.

    Attributes:
        stall_seconds: while its processes do nothing.
        busy_stall_seconds: while they work.
    """

    stall_seconds: float
    busy_stall_seconds: float


class Activity(NamedTuple):
    """What an engine's processes have done.

    Attributes:
        cpu_seconds: the processor's time that they have taken since they began.
        runnable: whether any of their threads runs, waits for a core or for a disk.
        stopped: whether any of them was stopped by a signal or a debugger.
    """

    cpu_seconds: float
    runnable: bool
    stopped: bool


class _Look(NamedTuple):
    seconds: float
    cpu: float
    runnable: bool
    stopped: bool


class StallDetector:
    """Follows an engine that owes an answer, from look to look.

    Time counts only as far as it was looked at: while this process itself does not
    get to run, the engine's answer may be there and is not seen.
    """

    def __init__(self, quiet_seconds: float, busy_seconds: float) -> None:
        """Begin with the question.

        Args:
            quiet_seconds: after so long without work it hangs.
            busy_seconds: after so long without an answer it hangs, whatever it does.
        """
        self.interval = quiet_seconds / SAMPLES
        self._quiet_seconds = quiet_seconds
        self._busy_seconds = busy_seconds
        self._cpu: float | None = None
        self._waited = 0.0
        self._looks: deque[_Look] = deque()
        self._span = 0.0

    def look(self, seconds: float, activity: Activity) -> str | None:
        """Return why the engine is to be given up, or None.

        Args:
            seconds: since the look before, or the question.
            activity: of its processes.
        """
        seconds = min(seconds, 2 * self.interval)
        before, self._cpu = self._cpu, activity.cpu_seconds
        cpu = 0.0 if before is None else max(0.0, activity.cpu_seconds - before)
        self._waited += seconds
        self._add(_Look(seconds, cpu, activity.runnable, activity.stopped))
        if self._span >= self._quiet_seconds and (why := self._hang()):
            return why
        if self._waited >= self._busy_seconds:
            return f"the engine was busy for {self._waited:.0f} s without an answer"
        return None

    def _add(self, look: _Look) -> None:
        self._looks.append(look)
        self._span += look.seconds
        while self._span - self._looks[0].seconds >= self._quiet_seconds:
            self._span -= self._looks.popleft().seconds

    def _hang(self) -> str | None:
        if all(look.stopped for look in self._looks):
            return f"a process of the engine was stopped for {self._span:.0f} s"
        cpu = sum(look.cpu for look in self._looks)
        runnable = sum(look.runnable for look in self._looks)
        if cpu < LEAST_CPU * self._span and runnable < LEAST_RUNNABLE * len(self._looks):
            return f"the engine did nothing for {self._span:.1f} s and owes an answer"
        return None


async def answered(
    asking: asyncio.Future[None], activity: Callable[[], Activity], detector: StallDetector
) -> None:
    """Wait for an answer as long as there is evidence that the engine works.

    Args:
        asking: is done with the answer.
        activity: looks at the engine's processes; may block, and runs in a thread.
        detector: begins with the question.

    Raises:
        Stalled: if the engine hangs.
    """
    looked_at = time.monotonic()
    while not (await asyncio.wait({asking}, timeout=detector.interval))[0]:
        seen = await asyncio.to_thread(activity)
        now = time.monotonic()
        why = detector.look(now - looked_at, seen)
        looked_at = now
        if why is not None and not asking.done():
            raise Stalled(why)
    await asking
