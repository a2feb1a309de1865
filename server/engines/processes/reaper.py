"""The reaper: a process that kills the orphaned processes of a gateway that was killed.

An engine's processes do not end with their parent. The reaper detects the gateway's end, whatever
its cause, by EOF on its own standard input. It then kills every process that carries the gateway's
mark, an environment variable that all descendants of the gateway inherit.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import resource_tracker

import psutil

from proctor.server.engines.processes.process_tree import ProcessTree

MARK = "_PROCTOR_GATEWAY"
KEEP_ENVIRONMENT = {"SPT_NOENV": "1"}
"""Keeps setproctitle, which vLLM's processes use, from overwriting the environment with the
title."""

CLEAN_EXIT = b"done"
"""Written to the reaper by a gateway that exits by itself."""

SETTLE_SECONDS = 1.0
"""How long to keep searching after a gateway was killed: a process that is just being started
has no environment of its own for a moment."""

POLL_SECONDS = 0.1
EXIT_SECONDS = 30.0


@contextlib.contextmanager
def reaping() -> Iterator[None]:
    """Run a reaper for the processes that this process starts in the body."""
    # Started before the mark is set, so that the reaper spares the resource tracker: it exits
    # after all others, and removes shared memory that no process has mapped.
    resource_tracker.ensure_running()
    mark = secrets.token_hex(16)
    reaper = subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", __name__, mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,  # so that Ctrl-C in a terminal does not reach it
    )
    os.environ.update({MARK: mark, **KEEP_ENVIRONMENT})
    try:
        yield
    finally:
        del os.environ[MARK]
        with contextlib.suppress(subprocess.TimeoutExpired):
            reaper.communicate(CLEAN_EXIT, EXIT_SECONDS)


def main() -> None:
    """Wait for the gateway to end, then kill the processes that it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # These may be sent to every process of a container; the reaper must outlive the gateway.
        signal.signal(number, signal.SIG_IGN)
    (mark,) = sys.argv[1:]
    is_clean = sys.stdin.buffer.read() == CLEAN_EXIT
    deadline = time.monotonic() + (0 if is_clean else SETTLE_SECONDS)
    orphans = ProcessTree(partial(_marked, mark))
    orphans.kill()
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        orphans.kill()


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                yield process


if __name__ == "__main__":
    main()
