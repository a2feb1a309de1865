"""Threads for calls that cannot be cancelled: a call that takes too long is abandoned."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue

POLL_SECONDS = 0.02
"""Interval at which the CPU time of a call is checked."""

SECONDS_PER_CALL = 0.01
"""CPU time that each call may always take."""

BURST_SECONDS = 0.1
"""CPU time that all calls together may take beyond that, as in one step of the engine."""

RECOVERY_RATE = 0.2
"""Rate at which the allowance recovers, in CPU seconds per second."""


class Allowance:
    """A shared allowance of CPU time for calls that exceed `SECONDS_PER_CALL`.

    It bounds the time until the last of several slow calls is abandoned, however many there are.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seconds = BURST_SECONDS
        self._updated_at = clock()

    def left(self) -> float:
        """Return the CPU seconds available now."""
        with self._lock:
            return self._update()

    def spend(self, seconds: float) -> None:
        """Deduct CPU seconds, down to 0."""
        with self._lock:
            self._seconds = max(0.0, self._update() - max(0.0, seconds))

    def _update(self) -> float:
        now = self._clock()
        recovered = RECOVERY_RATE * (now - self._updated_at)
        self._seconds = min(BURST_SECONDS, self._seconds + recovered)
        self._updated_at = now
        return self._seconds


class MaskThreads:
    """A pool of threads, one per concurrent call.

    Calls are limited by CPU time, so that none is abandoned because the machine is busy.
    """

    def __init__(self) -> None:
        self._free: deque[MaskThread] = deque()
        self._allowance = Allowance()

    def run(self, call: Callable[[], None]) -> bool:
        """Run a call in a thread and wait for it.

        Args:
            call: the call; must release the GIL during long computations.

        Returns:
            Whether it finished. A call that did not is abandoned and continues at idle priority.
        """
        try:
            thread = self._free.pop()
        except IndexError:
            thread = MaskThread()
        limit = SECONDS_PER_CALL + self._allowance.left()
        start = thread.cpu_seconds()
        finished = thread.run(call, start + limit)
        self._allowance.spend(thread.cpu_seconds() - start - SECONDS_PER_CALL)
        if finished:
            self._free.append(thread)
        else:
            thread.abandon()
        return finished

    def close(self) -> None:
        """Stop all threads except abandoned ones."""
        while self._free:
            self._free.pop().close()


class MaskThread:
    """A thread of the pool."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._results: SimpleQueue[BaseException | None] = SimpleQueue()
        # A daemon thread, because the process would wait for any other one at exit.
        self._thread = threading.Thread(target=self._serve, name="mask", daemon=True)
        self._thread.start()

    def run(self, call: Callable[[], None], until: float) -> bool:
        """Run a call; return False if the thread's total CPU time exceeds `until` seconds first."""
        self._calls.put(call)
        while True:
            try:
                error = self._results.get(timeout=POLL_SECONDS)
            except Empty:
                if self.cpu_seconds() > until:
                    return False
                continue
            if error is not None:
                raise error
            return True

    def cpu_seconds(self) -> float:
        """Return the CPU time of the thread since its start."""
        if self._thread.ident is None or not hasattr(time, "pthread_getcpuclockid"):
            return time.monotonic()
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident))

    def abandon(self) -> None:
        """Continue the current call at idle priority, then stop."""
        self._calls.put(None)
        if self._thread.native_id is not None and hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(self._thread.native_id, os.SCHED_IDLE, os.sched_param(0))

    def close(self) -> None:
        """Stop the thread after the current call."""
        self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except BaseException as error:  # raised again in `run`
                self._results.put(error)
            else:
                self._results.put(None)
