"""The process of vLLM's engine core, which starts faster if vLLM was imported before."""

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any

from proctor.server.engines.garbage import no_garbage_collection
from proctor.server.engines.processes.fork_server import fork_context

# A process that is spawned imports this module first, to find `run_engine_core`.
with no_garbage_collection():
    import torch
    from vllm.utils.ompmultiprocessing import OMPProcessManager
    from vllm.utils.system_utils import set_process_title
    from vllm.v1.engine import utils
    from vllm.v1.engine.core import EngineCoreProc


class CurrentEnvironment(dict[str, str]):
    """Unpickled, the environment variables that this process had when it was pickled."""

    def __reduce__(self) -> tuple[type[dict[str, str]], tuple[dict[str, str]]]:
        return dict, (dict(os.environ),)


def run_engine_core(
    *args: Any, environment: Mapping[str, str], cpus: Collection[int], **kwargs: Any
) -> None:
    """Run vLLM's engine core in this process, with vLLM's arguments.

    Args:
        args: positional arguments.
        environment: the server's environment variables, which a forked process does not have.
        cpus: the CPUs of its threads; empty for all. OpenMP's variables for it come too late in a
            forked process, which has loaded OpenMP.
        kwargs: keyword arguments.
    """
    # It locates the memory of the title by the environment, so it must come before any change.
    set_process_title("EngineCore")
    os.environ.clear()
    os.environ.update(environment)
    if cpus:
        os.sched_setaffinity(0, cpus)  # OpenMP's threads inherit it when they start
        torch.set_num_threads(len(cpus))
    EngineCoreProc.run_engine_core(*args, **kwargs)


@contextlib.contextmanager
def starting_engine_core(threads: OMPProcessManager | None) -> Iterator[None]:
    """Make the engine cores that vLLM starts in the body run `run_engine_core`, forked if possible.

    Args:
        threads: binds their OpenMP threads, by environment variables where these are in time.
    """
    cpus = [] if threads is None or threads.skip_setup else threads.cpu_lists[0]
    run, fork = EngineCoreProc.__dict__["run_engine_core"], fork_context()
    # The module imports the function, and does not export it.
    context = utils.get_mp_context  # type: ignore[attr-defined]
    with contextlib.nullcontext() if threads is None else threads.configure_omp_envs(0, 0):
        target = partial(run_engine_core, environment=CurrentEnvironment(), cpus=cpus)
        EngineCoreProc.run_engine_core = staticmethod(target)
        if fork is not None:
            utils.get_mp_context = lambda: fork  # type: ignore[attr-defined]
        try:
            yield
        finally:
            EngineCoreProc.run_engine_core = run
            utils.get_mp_context = context  # type: ignore[attr-defined]
