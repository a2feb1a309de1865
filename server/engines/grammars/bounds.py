"""What one grammar may take of the machine."""

import contextlib
import os
import resource
import signal
from pathlib import Path

from proctor.server.engines.grammars.frames import Task

STACK_BYTES = 4 * 2**20
"""Half of what a thread has by default: what recurses deeper here would end the engine there."""


def bound(task: Task) -> None:
    """Hold this process to a task's limits, by the kernel: no code of ours runs while it compiles.

    The time is that of the CPU, so that nothing depends on what else the machine does.
    """
    os.nice(task.nice)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, STACK_BYTES))
    status = Path("/proc/self/status")
    if status.exists():
        with contextlib.suppress(OSError):  # of processes, the first to go when memory is short
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        (held,) = (line for line in status.read_text().splitlines() if line.startswith("VmData"))
        most = int(held.split()[1]) * 1024 + task.mebibytes * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, task.seconds)
