"""Detects an engine that hangs, by the CPU time and the thread states of its processes."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

SAMPLES = 16
"""How often the processes are sampled within `StallTimeouts.stall_seconds`."""

MIN_CPU = 0.05
"""CPU time as a share of one core. A hanging engine uses less, although it still reads the
requests that clients send."""

MIN_RUNNABLE = 0.25
"""Share of the samples in which some thread can run. A working engine is above it."""


class Stalled(RuntimeError):
    """The engine hangs and must be killed; the message says why."""


@dataclass(frozen=True, slots=True)
class StallTimeouts:
    """How long an engine may take to respond.

    Attributes:
        stall_seconds: while its processes are idle.
        busy_stall_seconds: while they work.
    """

    stall_seconds: float
    busy_stall_seconds: float


class Activity(NamedTuple):
    """A snapshot of an engine's processes.

    Attributes:
        cpu_seconds: CPU time that they have used since they started.
        runnable: whether any of their threads runs, or waits for a core or a disk.
        stopped: whether any of them is stopped by a signal or a debugger.
    """

    cpu_seconds: float
    runnable: bool
    stopped: bool


class _Sample(NamedTuple):
    seconds: float
    cpu: float
    runnable: bool
    stopped: bool


class StallDetector:
    """Decides from samples of its processes whether an engine that has not responded hangs.

    Long gaps between samples count in part only: while this process itself is not scheduled,
    the response may have arrived unnoticed.
    """

    def __init__(self, idle_seconds: float, busy_seconds: float) -> None:
        """Start when the request is sent to the engine.

        Args:
            idle_seconds: time without activity after which the engine counts as hanging.
            busy_seconds: time without a response after which it does, whatever its activity.
        """
        self.interval = idle_seconds / SAMPLES
        self._idle_seconds = idle_seconds
        self._busy_seconds = busy_seconds
        self._cpu: float | None = None
        self._waited = 0.0
        self._samples: deque[_Sample] = deque()
        self._span = 0.0

    def add(self, seconds: float, activity: Activity) -> str | None:
        """Add a sample and return why the engine counts as hanging, or None.

        Args:
            seconds: time since the previous sample, or since the request was sent.
            activity: of its processes.
        """
        seconds = min(seconds, 2 * self.interval)
        before, self._cpu = self._cpu, activity.cpu_seconds
        cpu = 0.0 if before is None else max(0.0, activity.cpu_seconds - before)
        self._waited += seconds
        self._append(_Sample(seconds, cpu, activity.runnable, activity.stopped))
        if self._span >= self._idle_seconds and (reason := self._stall_reason()):
            return reason
        if self._waited >= self._busy_seconds:
            return f"the engine was busy for {self._waited:.0f} s without responding"
        return None

    def _append(self, sample: _Sample) -> None:
        self._samples.append(sample)
        self._span += sample.seconds
        while self._span - self._samples[0].seconds >= self._idle_seconds:
            self._span -= self._samples.popleft().seconds

    def _stall_reason(self) -> str | None:
        if all(sample.stopped for sample in self._samples):
            return f"a process of the engine was stopped for {self._span:.0f} s"
        cpu = sum(sample.cpu for sample in self._samples)
        runnable = sum(sample.runnable for sample in self._samples)
        if cpu < MIN_CPU * self._span and runnable < MIN_RUNNABLE * len(self._samples):
            return f"the engine was idle for {self._span:.1f} s without responding"
        return None


async def wait_unless_stalled(
    response: asyncio.Future[None], activity: Callable[[], Activity], detector: StallDetector
) -> None:
    """Wait for the engine's response while its processes show activity.

    Args:
        response: done when the engine has responded.
        activity: samples the engine's processes; it may block and runs in a thread.
        detector: a fresh detector.

    Raises:
        Stalled: if the engine hangs.
    """
    sampled_at = time.monotonic()
    while not (await asyncio.wait({response}, timeout=detector.interval))[0]:
        sample = await asyncio.to_thread(activity)
        now = time.monotonic()
        reason = detector.add(now - sampled_at, sample)
        sampled_at = now
        if reason is not None and not response.done():
            raise Stalled(reason)
    await response
