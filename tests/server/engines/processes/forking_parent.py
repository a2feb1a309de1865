"""A process that starts a fork server, and one process by it. Run by `test_fork_server.py`."""

import os
import signal
import sys
from pathlib import Path

from proctor.server.engines.processes import fork_server

MODULE = "numpy"


def report() -> None:
    """Write what the process has of the fork server."""
    threads = len([*Path("/proc/self/task").iterdir()])
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    sys.stdout.write(f"{MODULE in sys.modules} {threads} {blocked}\n")
    sys.stdout.flush()


def main() -> None:
    """Write what a process has that is forked, and wait for the end of the input."""
    before = dict(os.environ)
    assert fork_server.fork_context() is None
    fork_server.start(MODULE, {"SHELL": "of the fork server"})
    assert fork_server.fork_context() is fork_server.FORK
    assert dict(os.environ) == before
    assert MODULE not in sys.modules
    process = fork_server.FORK.Process(target=report)
    process.start()
    process.join()
    sys.stdin.read()


if __name__ == "__main__":
    main()
