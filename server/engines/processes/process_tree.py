"""Processes with all that they have started: how they end, and what they leave behind.

Nothing heavy is imported here: a process that ends others takes this along.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

KILL_SECONDS = 10.0
KILL_POLL_SECONDS = 0.02

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
PREFIXES = ("psm_", "sem.loky-", "sem.mp-", "nccl-")
"""How files of shared memory begin that a process makes for itself and its like."""


class ProcessTree:
    """Some processes with all their descendants, and the shared memory that they hold.

    They are noted while they live: one whose parent was killed is a child of nobody
    that we know, and shared memory whose maker was killed is listed nowhere.
    """

    def __init__(
        self,
        find: Callable[[], Iterable[psutil.Process]],
        forget: Callable[[str], None] = lambda name: None,
    ) -> None:
        """Begin with none.

        Args:
            find: finds the processes whose descendants count too.
            forget: is given the name of shared memory that was given back.
        """
        self._find = find
        self._forget = forget
        self._known: set[psutil.Process] = set()
        self._segments: set[str] = set()
        self._lock = threading.Lock()

    def note(self) -> list[psutil.Process]:
        """Look for new processes and shared memory; return the processes that live."""
        with self._lock:
            self._known.update(_with_descendants(self._find()))
            self._known = {process for process in self._known if _is_alive(process)}
            for process in self._known:
                self._segments.update(_segments_of(process.pid))
            # What this process has too it will give back itself.
            self._segments.difference_update(_segments_of(os.getpid()))
            return [*self._known]

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
        self._clear()

    def _clear(self) -> None:
        """Give back shared memory whose makers are gone without having done so."""
        with self._lock:
            for name in self._segments:
                with contextlib.suppress(FileNotFoundError):
                    (SHARED_MEMORY / name).unlink()
                    self._forget(name)
            self._segments.clear()
            self._known.clear()


def status_of(process: psutil.Process) -> str:
    """Return psutil's word for what a process does; one that is gone is a zombie."""
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_ZOMBIE)


def _with_descendants(roots: Iterable[psutil.Process]) -> Iterator[psutil.Process]:
    for root in roots:
        yield root
        with contextlib.suppress(psutil.NoSuchProcess):
            yield from root.children(recursive=True)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def _is_alive(process: psutil.Process) -> bool:
    return bool(process.is_running()) and status_of(process) != str(psutil.STATUS_ZOMBIE)


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
