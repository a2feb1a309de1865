"""Resource limits for the check of one grammar."""

import contextlib
import os
import resource
import signal
from pathlib import Path

from proctor.server.engines.grammars.frames import CheckRequest

STACK_BYTES = 4 * 2**20
"""Half of a thread's default stack. A grammar that recurses deeper than this while it is checked
would overflow the stack of the engine's thread, which ends the engine."""


def apply_limits(request: CheckRequest) -> None:
    """Apply the limits of a request to this process.

    The kernel enforces them, as no Python code runs while a grammar compiles. The time limit is
    one of CPU time, so that it does not depend on the load of the machine.
    """
    os.nice(request.nice)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, STACK_BYTES))
    status = Path("/proc/self/status")
    if status.exists():
        with contextlib.suppress(OSError):  # make this process the OOM killer's first choice
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        (used,) = (line for line in status.read_text().splitlines() if line.startswith("VmData"))
        limit = int(used.split()[1]) * 1024 + request.memory_mib * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, request.seconds)
