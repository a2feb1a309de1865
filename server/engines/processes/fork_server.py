"""A process that imports large libraries early, from which those of an engine are forked.

Python's own fork server (`multiprocessing.forkserver`): a single-threaded process, which ends with
this one. An engine then starts without importing vLLM again, and shares its memory.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

from proctor.server.engines.processes.engine_processes import interrupts_blocked

FORK = multiprocessing.get_context("forkserver")

SINGLE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""Keeps NumPy from starting threads when it is imported: a fork has only one thread."""

_preloaded: list[str] = []
"""The modules that fork servers of this process were started with."""


def start(module: str, variables: Mapping[str, str]) -> None:
    """Start the process, which imports a module while this one goes on.

    Processes inherit its environment variables and its signal mask.

    Args:
        module: the name of the module.
        variables: additional environment variables.
    """
    FORK.set_forkserver_preload([module])
    with _environment({**SINGLE_THREAD, **variables}), interrupts_blocked():
        forkserver.ensure_running()
    _preloaded.append(module)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables while the body runs."""
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in previous.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


def fork_context() -> ForkServerContext | None:
    """Return the context that forks processes from the fork server; None if it was not started."""
    return FORK if _preloaded else None
