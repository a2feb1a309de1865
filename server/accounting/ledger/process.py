"""The identity of a gateway's process, by which others on its machine see whether it runs."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE_LINK = Path("/proc/self/ns/pid")
"""Process IDs are only comparable within one PID namespace."""

STATE_FIELD, START_TIME_FIELD = 0, 19
"""Indices of the fields of `/proc/[pid]/stat` that follow the name, see proc(5)."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process on this or another machine.

    Attributes:
        host: the machine's boot ID and the PID namespace; empty if they are not available.
        pid: the process ID.
        birth: the start time, in clock ticks since the boot, since process IDs are reused.
    """

    host: str
    pid: int
    birth: int

    @property
    def is_local(self) -> bool:
        """Whether the process is on this machine, so that its end is visible."""
        return bool(self.host) and self.host == this_host()

    @property
    def has_ended(self) -> bool:
        """Whether the process has certainly ended; False for processes on other machines."""
        return self.is_local and start_time_of(self.pid) != self.birth


def this_process() -> Process:
    """Return the identity of the current process."""
    return Process(this_host(), os.getpid(), start_time_of(os.getpid()) or 0)


@cache
def this_host() -> str:
    """Return the `host` of processes on this machine."""
    try:
        return f"{BOOT_ID_FILE.read_text().strip()} {PID_NAMESPACE_LINK.readlink()}"
    except OSError:
        return ""


def start_time_of(pid: int) -> int | None:
    """Return the start time of a process, in clock ticks since the boot; None if it has ended."""
    try:
        # The name before the fields is in parentheses, and may contain any characters.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if fields[STATE_FIELD] in "ZX" else int(fields[START_TIME_FIELD])
