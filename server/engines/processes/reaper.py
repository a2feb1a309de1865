"""Ends what a gateway leaves behind that was killed: a process of its own, which waits for that.

An engine's processes do not end with their parent. This one learns of the gateway's end,
however it comes, by the end of its standard input, and ends every process that bears the
gateway's mark: a variable of the environment, which all that it starts inherit.
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
"""Or else a process that gives itself a title, as vLLM's do, writes it over its environment."""

DONE = b"done"
"""What a gateway says that ends by itself."""

SETTLE_SECONDS = 1.0
"""That is looked on after a gateway was killed: what it was starting just then, or what its
engine was, has no environment of its own for a moment."""

POLL_SECONDS = 0.1
FAREWELL_SECONDS = 30.0


@contextlib.contextmanager
def reaping() -> Iterator[None]:
    """End what this process has started and left behind, once it is gone; from here on."""
    # First, so that it has no mark: it ends by itself after all others, and gives back what they
    # shared and nobody has mapped.
    resource_tracker.ensure_running()
    mark = secrets.token_hex(16)
    reaper = subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", __name__, mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,  # Ctrl-C in a terminal is not for it
    )
    os.environ.update({MARK: mark, **KEEP_ENVIRONMENT})
    try:
        yield
    finally:
        del os.environ[MARK]
        with contextlib.suppress(subprocess.TimeoutExpired):
            reaper.communicate(DONE, FAREWELL_SECONDS)


def main() -> None:
    """Wait for the gateway's end, and for that of all its processes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # told to everybody; it ends with the gateway
    (mark,) = sys.argv[1:]
    by_itself = sys.stdin.buffer.read() == DONE
    settled = time.monotonic() + (0 if by_itself else SETTLE_SECONDS)
    left = ProcessTree(partial(_marked, mark))
    left.kill()
    while time.monotonic() < settled:
        time.sleep(POLL_SECONDS)
        left.kill()


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                yield process


if __name__ == "__main__":
    main()
