"""The processes of an engine: their activity, and how they end with the server."""

import contextlib
import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
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

PROCESS_NAMES = ("EngineCore", "VLLM_DP_Coordinator")
"""Name prefixes of the processes that vLLM starts from this one; its workers are their children."""

WAITING_TO_RUN = (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP)
STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
NOTE_SECONDS = 0.5

TRACKED = {"psm_": "shared_memory", "sem.": "semaphore"}
"""Resource types of Python's resource tracker, by the prefix of the shared memory file's name."""

SHUTTING_DOWN = threading.Event()
"""Set once this process is about to exit: no engine may start any more."""


class EngineProcesses(ProcessTree):
    """The processes that vLLM starts from this one, and all their descendants.

    Those of every engine, or only those of the engine that starts in the body of `starting`.
    """

    def __init__(self) -> None:
        """Create a tree of every engine's processes."""
        super().__init__(self._roots, _forget)
        self._others: frozenset[BaseProcess] = frozenset()
        self._own: frozenset[BaseProcess] | None = None

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Track the processes while the body starts them; kill them if it raises."""
        self._others = frozenset(child_engine_processes())
        done = threading.Event()

        def work() -> None:
            while not done.wait(NOTE_SECONDS):
                self.refresh()

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
            self.refresh()
            self._own = frozenset(self._children())

    def activity(self) -> Activity:
        """Return a snapshot of their activity."""
        alive = self.refresh()
        return Activity(
            cpu_seconds=sum(map(_cpu_seconds, alive)),
            runnable=any(map(_is_runnable, alive)),
            stopped=any(status_of(process) in STOPPED for process in alive),
        )

    def kill(self) -> None:
        super().kill()
        for child in self._children():
            child.join(KILL_POLL_SECONDS)

    def _roots(self) -> Iterator[psutil.Process]:
        for child in self._children():
            with contextlib.suppress(psutil.NoSuchProcess):
                yield psutil.Process(child.pid)

    def _children(self) -> list[BaseProcess]:
        return [
            child
            for child in child_engine_processes()
            if child not in self._others and (self._own is None or child in self._own)
        ]


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Block SIGINT in the processes that this thread starts; they inherit the signal mask.

    Ctrl-C in a terminal goes to the whole process group, and vLLM's processes would exit at once,
    while this process still has responses to finish.
    """
    # The resource tracker starts with the first child process, and its start unblocks SIGINT.
    resource_tracker.ensure_running()
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def child_engine_processes() -> list[BaseProcess]:
    """Return the child processes of this process that belong to engines."""
    children = multiprocessing.active_children()
    return [child for child in children if child.name.startswith(PROCESS_NAMES)]


def end_engines(loader: threading.Thread | None) -> None:
    """Kill every engine of this process before the process exits.

    Args:
        loader: the thread that may be loading an engine.
    """
    SHUTTING_DOWN.set()
    # An engine that is killed while it starts logs errors that mislead.
    logging.getLogger("vllm").setLevel(logging.CRITICAL)
    processes = EngineProcesses()
    deadline = time.monotonic() + KILL_SECONDS
    processes.kill()
    while loader is not None and loader.is_alive() and time.monotonic() < deadline:
        loader.join(KILL_POLL_SECONDS)
        processes.kill()


def _cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time of a process, that of its terminated children included."""
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.Error:
        return 0.0


def _is_runnable(process: psutil.Process) -> bool:
    """Return whether any of its threads runs, or waits for a core or a disk."""
    if status_of(process) in WAITING_TO_RUN:
        return True
    for path in Path(f"/proc/{process.pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            # The command name comes before the state, in parentheses, and may contain anything.
            state = path.read_bytes().rpartition(b") ")[2][:1]
            if state in (b"R", b"D"):
                return True
    return False


def _forget(name: str) -> None:
    """Unregister a removed file from Python's resource tracker, which would report it as leaked."""
    for prefix, kind in TRACKED.items():
        if name.startswith(prefix):
            resource_tracker.unregister(f"/{name.removeprefix('sem.')}", kind)
