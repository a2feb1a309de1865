"""The processes of an engine: whether they work, how they end, and what they leave behind."""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from server.engines.stall import Activity

NAMES = ("EngineCore", "VLLM_DP_Coordinator")
"""What vLLM calls the processes that it starts from this one; workers are children of theirs."""

WAITING_TO_RUN = (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP)
STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
NOTE_SECONDS = 0.5
KILL_SECONDS = 10.0
KILL_POLL_SECONDS = 0.02

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
TRACKED = {"psm_": "shared_memory", "sem.": "semaphore"}
"""How files of shared memory begin that Python's resource tracker knows of, and as what."""
PREFIXES = ("psm_", "sem.loky-", "sem.mp-", "nccl-")
"""How those begin that a process makes for itself and its like."""

ENDING = threading.Event()
"""Set once this process is about to end: no engine is to be started any more."""


class EngineProcesses:
    """The processes that vLLM started from this one, with all their descendants.

    They are noted while they live: a worker whose parent was killed is a child of nobody
    that we know, and shared memory whose maker was killed is listed nowhere.
    """

    def __init__(self, others: Iterable[BaseProcess] = ()) -> None:
        """Begin with none.

        Args:
            others: processes that are another engine's.
        """
        self._others = frozenset(others)
        self._known: set[psutil.Process] = set()
        self._segments: set[str] = set()
        self._lock = threading.Lock()

    def note(self) -> list[psutil.Process]:
        """Look for new processes and shared memory; return the processes that live."""
        with self._lock:
            self._known.update(_descendants(self._children()))
            self._known = {process for process in self._known if _is_alive(process)}
            for process in self._known:
                self._segments.update(_segments_of(process.pid))
            # What this process has too it will give back itself.
            self._segments.difference_update(_segments_of(os.getpid()))
            return [*self._known]

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
            stopped=any(_status(process) in STOPPED for process in alive),
        )

    def kill(self) -> None:
        """Put an end to all of them, and to the shared memory that they held.

        They are not asked to end: a process that hangs would not.
        """
        deadline = time.monotonic() + KILL_SECONDS
        # One that is in the kernel's hands may not end in time; nothing more can be done about it.
        while (alive := self.note()) and time.monotonic() < deadline:
            for process in alive:
                _signal(process, signal.SIGSTOP)
            time.sleep(KILL_POLL_SECONDS)
            # None of them can share anything now that is not noted.
            for process in self.note():
                _signal(process, signal.SIGKILL)
            time.sleep(KILL_POLL_SECONDS)
        for child in self._children():
            child.join(KILL_POLL_SECONDS)
        self.clear()

    def _children(self) -> list[BaseProcess]:
        return [child for child in started() if child not in self._others]

    def clear(self) -> None:
        """Give back shared memory whose makers are gone without having done so."""
        with self._lock:
            for name in self._segments:
                _unlink(name)
            self._segments.clear()
            self._known.clear()


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


def _descendants(children: Iterable[BaseProcess]) -> Iterator[psutil.Process]:
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(child.pid)
            yield root
            yield from root.children(recursive=True)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def _is_alive(process: psutil.Process) -> bool:
    return bool(process.is_running()) and _status(process) != str(psutil.STATUS_ZOMBIE)


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_ZOMBIE)


def _cpu_seconds(process: psutil.Process) -> float:
    """The processor's time that it took, with that of its children that have ended."""
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.Error:
        return 0.0


def _is_runnable(process: psutil.Process) -> bool:
    """Whether any of its threads runs, waits for a core, or waits for a disk."""
    if _status(process) in WAITING_TO_RUN:
        return True
    for path in Path(f"/proc/{process.pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            # The name before it, in parentheses, may hold anything.
            state = path.read_bytes().rpartition(b") ")[2][:1]
            if state in (b"R", b"D"):
                return True
    return False


def _segments_of(pid: int) -> Iterator[str]:
    """The names of the shared memory that a process has mapped.

    They are found by their inodes: a semaphore gets its name after it was mapped.
    """
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return
    mapped = {int(line.split()[4]) for line in maps.splitlines() if f" {SHARED_MEMORY}/" in line}
    if not mapped:
        return
    with os.scandir(SHARED_MEMORY) as entries:
        for entry in entries:
            if entry.inode() in mapped and entry.name.startswith(PREFIXES):
                yield entry.name


def _unlink(name: str) -> None:
    try:
        (SHARED_MEMORY / name).unlink()
    except FileNotFoundError:
        return
    for prefix, kind in TRACKED.items():
        if name.startswith(prefix):
            # Or else it would report this one as leaked when the server ends.
            resource_tracker.unregister(f"/{name.removeprefix('sem.')}", kind)
