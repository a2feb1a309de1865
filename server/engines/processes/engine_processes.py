"""The processes of an engine: whether they work, and how they end with their server."""

import contextlib
import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from proctor.server.engines.processes.process_tree import (
    KILL_POLL_SECONDS,
    KILL_SECONDS,
    ProcessTree,
    status_of,
)
from proctor.server.engines.processes.stall import Activity

NAMES = ("EngineCore", "VLLM_DP_Coordinator")
"""What vLLM calls the processes that it starts from this one; workers are children of theirs."""

WAITING_TO_RUN = (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP)
STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
NOTE_SECONDS = 0.5

TRACKED = {"psm_": "shared_memory", "sem.": "semaphore"}
"""How files of shared memory begin that Python's resource tracker knows of, and as what."""

ENDING = threading.Event()
"""Set once this process is about to end: no engine is to be started any more."""


class EngineProcesses(ProcessTree):
    """The processes that vLLM started from this one, with all their descendants."""

    def __init__(self, others: Iterable[BaseProcess] = ()) -> None:
        """Begin with none.

        Args:
            others: processes that are another engine's.
        """
        super().__init__(self._roots, _forget)
        self._others = frozenset(others)

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Note them again and again, beside what starts them; if that fails, they are ended."""
        done = threading.Event()

        def work() -> None:
            while not done.wait(NOTE_SECONDS):
                self.note()

        thread = threading.Thread(target=work, name="engine-processes", daemon=True)
        thread.start()
        try:
            with interrupts_blocked():
                yield
        except BaseException:
            self.kill()
            raise
        finally:
            done.set()
            thread.join()
            self.note()

    def activity(self) -> Activity:
        """What they have done so far, and whether they can go on."""
        alive = self.note()
        return Activity(
            cpu_seconds=sum(map(_cpu_seconds, alive)),
            runnable=any(map(_is_runnable, alive)),
            stopped=any(status_of(process) in STOPPED for process in alive),
        )

    def kill(self) -> None:
        """See `ProcessTree`."""
        super().kill()
        for child in self._children():
            child.join(KILL_POLL_SECONDS)

    def _roots(self) -> Iterator[psutil.Process]:
        for child in self._children():
            with contextlib.suppress(psutil.NoSuchProcess):
                yield psutil.Process(child.pid)

    def _children(self) -> list[BaseProcess]:
        return [child for child in started() if child not in self._others]


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C for the processes that this thread starts, which inherit that.

    A terminal sends it to all of its processes, and vLLM's would end at once, while this one has
    answers to finish.
    """
    resource_tracker.ensure_running()  # its start, which comes with the first process, unblocks it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def started() -> list[BaseProcess]:
    """The processes of engines that are children of this one."""
    return [child for child in multiprocessing.active_children() if child.name.startswith(NAMES)]


def end_engines(loader: threading.Thread | None) -> None:
    """Put an end to every engine of this process, which is about to end itself.

    Args:
        loader: the thread that may be loading one.
    """
    ENDING.set()
    # An engine that fails to start, because it is killed here, is nobody's concern any more.
    logging.getLogger("vllm").setLevel(logging.CRITICAL)
    processes = EngineProcesses()
    deadline = time.monotonic() + KILL_SECONDS
    processes.kill()
    while loader is not None and loader.is_alive() and time.monotonic() < deadline:
        loader.join(KILL_POLL_SECONDS)
        processes.kill()


def _cpu_seconds(process: psutil.Process) -> float:
    """The processor's time that it took, with that of its children that have ended."""
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.Error:
        return 0.0


def _is_runnable(process: psutil.Process) -> bool:
    """Whether any of its threads runs, waits for a core, or waits for a disk."""
    if status_of(process) in WAITING_TO_RUN:
        return True
    for path in Path(f"/proc/{process.pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            # The name before it, in parentheses, may hold anything.
            state = path.read_bytes().rpartition(b") ")[2][:1]
            if state in (b"R", b"D"):
                return True
    return False


def _forget(name: str) -> None:
    """Tell Python's resource tracker, which would report it as leaked when the server ends."""
    for prefix, kind in TRACKED.items():
        if name.startswith(prefix):
            resource_tracker.unregister(f"/{name.removeprefix('sem.')}", kind)
