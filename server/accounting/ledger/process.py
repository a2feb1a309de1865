"""Which process a gateway is, so that others on its machine can see whether it lives."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
NAMESPACE = Path("/proc/self/ns/pid")
"""Process ids mean the same to those who share it."""

STATE, BIRTH = 0, 19
"""Fields of `/proc/[pid]/stat` after the name, see proc(5)."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of some machine.

    Attributes:
        host: names the machine's boot and the namespace of its process ids; empty where
            neither can be had.
        pid: its id.
        birth: when it began, in clock ticks since the boot: ids are used again.
    """

    host: str
    pid: int
    birth: int

    @property
    def is_here(self) -> bool:
        """Whether it is of this machine, so that its end can be seen."""
        return bool(self.host) and self.host == this_host()

    @property
    def is_gone(self) -> bool:
        """Whether it has certainly ended; of one elsewhere nothing is certain."""
        return self.is_here and birth_of(self.pid) != self.birth


def this_process() -> Process:
    """This one."""
    return Process(this_host(), os.getpid(), birth_of(os.getpid()) or 0)


@cache
def this_host() -> str:
    """See `Process`."""
    try:
        return f"{BOOT.read_text().strip()} {NAMESPACE.readlink()}"
    except OSError:
        return ""


def birth_of(pid: int) -> int | None:
    """See `Process`; None if it has ended."""
    try:
        # The name before them, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if fields[STATE] in "ZX" else int(fields[BIRTH])
