"""Threads for calls that nobody can stop: one that takes too long is left alone with its thread."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue

LOOK_SECONDS = 0.02
"""Between two looks at how much CPU time a call has taken."""

SHARE_SECONDS = 0.01
"""CPU time that each call may take for good."""

BURST_SECONDS = 0.1
"""CPU time that all calls together may take beyond their shares: in one step, that is."""

RECOVERY = 0.2
"""CPU seconds of it that come back in each second."""


class Allowance:
    """CPU time for calls beyond their shares, which all of them have together.

    However many take too long at once, only so much is spent before the last of them is given up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = BURST_SECONDS
        self._since = time.monotonic()

    def left(self) -> float:
        """What there is of it now."""
        with self._lock:
            return self._recovered()

    def spend(self, seconds: float) -> None:
        """Take some of it."""
        with self._lock:
            self._seconds = max(0.0, self._recovered() - max(0.0, seconds))

    def _recovered(self) -> float:
        now = time.monotonic()
        self._seconds = min(BURST_SECONDS, self._seconds + RECOVERY * (now - self._since))
        self._since = now
        return self._seconds


class MaskThreads:
    """Threads that calls are made in, as many as calls are made at a time.

    The time is that of the CPU, so that a machine with too much to do has none given up.
    """

    def __init__(self) -> None:
        self._free: deque[MaskThread] = deque()
        self._allowance = Allowance()

    def run(self, call: Callable[[], None]) -> bool:
        """Make a call, and wait for it.

        Args:
            call: releases the interpreter's lock where it takes long.

        Returns:
            Whether it has ended. One that has not goes on, behind all else that the machine does.
        """
        try:
            thread = self._free.pop()
        except IndexError:
            thread = MaskThread()
        most = SHARE_SECONDS + self._allowance.left()
        began = thread.cpu_seconds()
        ended = thread.run(call, began + most)
        self._allowance.spend(thread.cpu_seconds() - began - SHARE_SECONDS)
        if ended:
            self._free.append(thread)
        else:
            thread.stand_back()
        return ended

    def close(self) -> None:
        """Let the threads end, but for those that were left alone."""
        while self._free:
            self._free.pop().close()


class MaskThread:
    """One of them."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ended: SimpleQueue[BaseException | None] = SimpleQueue()
        # A daemon, or else the process would wait for it to end.
        self._thread = threading.Thread(target=self._serve, name="mask", daemon=True)
        self._thread.start()

    def run(self, call: Callable[[], None], until: float) -> bool:
        """See `MaskThreads`; until it has taken so much CPU time in all."""
        self._asked.put(call)
        while True:
            try:
                error = self._ended.get(timeout=LOOK_SECONDS)
            except Empty:
                if self.cpu_seconds() > until:
                    return False
                continue
            if error is not None:
                raise error
            return True

    def cpu_seconds(self) -> float:
        """CPU time that it has taken since it began."""
        if self._thread.ident is None or not hasattr(time, "pthread_getcpuclockid"):
            return time.monotonic()
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident))

    def stand_back(self) -> None:
        """Have it go on with what nobody else wants the CPU for, and then end."""
        self._asked.put(None)
        if self._thread.native_id is not None and hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(self._thread.native_id, os.SCHED_IDLE, os.sched_param(0))

    def close(self) -> None:
        """End it after its call."""
        self._asked.put(None)

    def _serve(self) -> None:
        while (call := self._asked.get()) is not None:
            try:
                call()
            except BaseException as error:  # whoever waits gets it
                self._ended.put(error)
            else:
                self._ended.put(None)
