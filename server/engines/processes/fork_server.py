"""A process that imports large libraries early, from which those of an engine are forked.

Python's own fork server (`multiprocessing.forkserver`): a single-threaded process, which ends with
this one. An engine then starts without importing vLLM again, and shares its memory.
"""

import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

from proctor.server.engines.processes.engine_processes import interrupts_blocked

FORK = multiprocessing.get_context("forkserver")
SPAWN = multiprocessing.get_context("spawn")

SINGLE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""Keeps NumPy from starting threads when it is imported: only one would live on in a fork."""

_preloaded: list[str] = []


def start(module: str) -> None:
    """Start the process, which imports a module while this one goes on.

    Processes inherit its environment variables and its signal mask.
    """
    _preloaded[:] = [module]
    FORK.set_forkserver_preload(_preloaded)
    others = {name: value for name, value in os.environ.items() if name not in SINGLE_THREAD}
    os.environ.update(SINGLE_THREAD)
    try:
        with interrupts_blocked():
            forkserver.ensure_running()
    finally:
        for name in SINGLE_THREAD:
            del os.environ[name]
        os.environ.update(others)


def process_context() -> BaseContext:
    """Return the context that starts processes: by forking if the fork server was started."""
    return FORK if _preloaded else SPAWN
