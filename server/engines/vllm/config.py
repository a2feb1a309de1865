"""vLLM's configuration, as the enforcement of budgets requires it, and its processes on a CPU."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform
from vllm.utils.ompmultiprocessing import OMPProcessManager

from proctor.budget.processors.integration.arguments import (
    PROCESSORS,
    RESERVED_ARGUMENTS,
    WORKER_EXTENSION,
    splits_prefills,
)
from proctor.budget.processors.structured_outputs import reasoning_parser
from proctor.server.config.unknown_names import describe_unknown

IN_PROCESS = "uni"
"""vLLM's executor that runs its one worker in the process of the engine core."""


def engine_config(model: str, name: str, arguments: Mapping[str, Any]) -> VllmConfig:
    """Return vLLM's configuration, with the logits processor that enforces budgets.

    Args:
        model: a path or a Hugging Face name.
        name: the name that clients use.
        arguments: vLLM's engine arguments.

    Raises:
        ValueError: if an argument does not exist, or conflicts with the enforcement of budgets.
    """
    for argument in (*RESERVED_ARGUMENTS, "reasoning_parser"):
        if argument in arguments:
            raise ValueError(f"engine.{argument} is set by the server: leave it out")
    known = [each.name for each in fields(AsyncEngineArgs)]
    for argument in arguments:
        if argument not in known:
            raise ValueError(describe_unknown("engine argument", argument, known))
    engine_args: dict[str, Any] = {
        "model": model,
        "served_model_name": name,
        "disable_log_stats": False,
        "worker_extension_cls": WORKER_EXTENSION,
        **arguments,
    }
    if not splits_prefills() and engine_args.setdefault("enable_chunked_prefill", False):
        raise ValueError("engine.enable_chunked_prefill must be false on the CPU")
    config = AsyncEngineArgs(**engine_args).create_engine_config()
    config.model_config.logits_processors = [PROCESSORS[config.use_v2_model_runner]]
    # Grammars apply from the end of the thinking on.
    structured = config.structured_outputs_config
    structured.reasoning_parser = reasoning_parser.NAME
    structured.reasoning_parser_plugin = reasoning_parser.__name__
    if arguments.get("distributed_executor_backend") is None:
        _join_engine_core_and_worker(config)
    return config


def openmp_threads(config: VllmConfig) -> OMPProcessManager | None:
    """Return how vLLM binds the OpenMP threads of a worker, if the engine core is the worker.

    The threads of a worker in a process of its own are bound by the engine core.
    """
    return OMPProcessManager(config) if _is_joined(config) else None


def _join_engine_core_and_worker(config: VllmConfig) -> None:
    """Run a single worker in the engine core's process on a CPU, as vLLM does on a GPU.

    vLLM starts a process for it because it binds OpenMP's threads by environment variables, which
    are read when a process starts; `starting_engine_core` binds them as well. Two processes need
    twice the time to start, and spend more CPU time on their messages than on a small model.
    """
    parallel = config.parallel_config
    if current_platform.is_cpu() and parallel.world_size_across_dp == 1:
        parallel.distributed_executor_backend = IN_PROCESS


def _is_joined(config: VllmConfig) -> bool:
    in_process = config.parallel_config.distributed_executor_backend == IN_PROCESS
    return current_platform.is_cpu() and in_process
