"""A process that imports large libraries early, from which those of an engine are forked.

Python's own fork server (`multiprocessing.forkserver`): a single-threaded process, which ends with
this one. An engine then starts without importing vLLM again, and shares its memory.
"""

import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, SpawnContext

from proctor.server.engines.processes.engine_processes import interrupts_blocked

FORK = multiprocessing.get_context("forkserver")
SPAWN = multiprocessing.get_context("spawn")

NUMPY_THREADS = "OPENBLAS_NUM_THREADS"
"""NumPy starts as many threads when it is imported; only one of a process lives on in a fork."""

_preloaded: list[str] = []


def start(module: str) -> None:
    """Start the process, which imports a module while this one goes on.

    Processes inherit its environment variables and its signal mask.
    """
    _preloaded[:] = [module]
    FORK.set_forkserver_preload(_preloaded)
    threads = os.environ.get(NUMPY_THREADS)
    os.environ[NUMPY_THREADS] = "1"
    try:
        with interrupts_blocked():
            forkserver.ensure_running()
    finally:
        del os.environ[NUMPY_THREADS]
        if threads is not None:
            os.environ[NUMPY_THREADS] = threads


def process_context() -> ForkServerContext | SpawnContext:
    """Return the context that starts processes: by forking if the fork server was started."""
    return FORK if _preloaded else SPAWN
