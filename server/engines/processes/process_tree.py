"""Process trees: killing processes, their descendants and the shared memory that they leave.

The reaper process imports this module, so its imports must stay light.
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
"""Name prefixes of the shared memory files that vLLM's and PyTorch's processes create."""


class ProcessTree:
    """Processes, all their descendants, and the shared memory that they hold.

    Both are recorded while the processes live: a process whose parent was killed can no longer
    be found as a descendant, and the shared memory of a killed process is listed nowhere.
    """

    def __init__(
        self,
        find: Callable[[], Iterable[psutil.Process]],
        forget: Callable[[str], None] = lambda name: None,
    ) -> None:
        """Create an empty tree.

        Args:
            find: returns the root processes.
            forget: called with the name of each shared memory file that was removed.
        """
        self._find = find
        self._forget = forget
        self._known: set[psutil.Process] = set()
        self._segments: set[str] = set()
        self._lock = threading.Lock()

    def refresh(self) -> list[psutil.Process]:
        """Record new processes and shared memory, and return the processes that are alive."""
        with self._lock:
            self._known.update(_with_descendants(self._find()))
            self._known = {process for process in self._known if _is_alive(process)}
            for process in self._known:
                self._segments.update(_segments_of(process.pid))
            # This process releases what it maps itself.
            self._segments.difference_update(_segments_of(os.getpid()))
            return [*self._known]

    def kill(self) -> None:
        """Kill all processes and remove the shared memory that they held.

        Sends SIGKILL without SIGTERM before it, which a process that hangs would ignore.
        """
        deadline = time.monotonic() + KILL_SECONDS
        # A process in uninterruptible sleep may outlive the deadline; nothing can be done about it.
        while (alive := self.refresh()) and time.monotonic() < deadline:
            for process in alive:
                _signal(process, signal.SIGSTOP)
            time.sleep(KILL_POLL_SECONDS)
            # Stopped processes cannot create shared memory that this refresh would miss.
            for process in self.refresh():
                _signal(process, signal.SIGKILL)
            time.sleep(KILL_POLL_SECONDS)
        self._clear()

    def _clear(self) -> None:
        """Remove the shared memory that killed processes have left."""
        with self._lock:
            for name in self._segments:
                with contextlib.suppress(FileNotFoundError):
                    (SHARED_MEMORY / name).unlink()
                    self._forget(name)
            self._segments.clear()
            self._known.clear()


def status_of(process: psutil.Process) -> str:
    """Return psutil's status of a process; one that is gone counts as a zombie."""
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
    """Return the names of the shared memory files that a process has mapped.

    Matches by inode, as a semaphore gets its final name after it was mapped.
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
