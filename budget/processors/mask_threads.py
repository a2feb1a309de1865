"""Threads for calls that nobody can stop: one that takes too long is left alone with its thread."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue

LOOK_SECONDS = 0.02
"""Between two looks at how much CPU time a call has taken."""


class MaskThreads:
    """Threads that calls are made in, as many as calls are made at a time.

    The time is that of the CPU, so that a machine with too much to do has none given up.
    """

    def __init__(self) -> None:
        self._free: deque[MaskThread] = deque()

    def run(self, call: Callable[[], None], most_seconds: float) -> bool:
        """Make a call, and wait for it.

        Args:
            call: releases the interpreter's lock where it takes long.
            most_seconds: CPU time that it may take.

        Returns:
            Whether it has ended. One that has not goes on, behind all else that the machine does.
        """
        try:
            thread = self._free.pop()
        except IndexError:
            thread = MaskThread()
        ended = thread.run(call, most_seconds)
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

    def run(self, call: Callable[[], None], most_seconds: float) -> bool:
        """See `MaskThreads`."""
        until = self._cpu_seconds() + most_seconds
        self._asked.put(call)
        while True:
            try:
                error = self._ended.get(timeout=LOOK_SECONDS)
            except Empty:
                if self._cpu_seconds() > until:
                    return False
                continue
            if error is not None:
                raise error
            return True

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

    def _cpu_seconds(self) -> float:
        if self._thread.ident is None or not hasattr(time, "pthread_getcpuclockid"):
            return time.monotonic()
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident))
