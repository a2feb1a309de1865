"""Adds to a configuration of Ray Serve LLM what vLLM needs to enforce budgets."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.tokenizers import cached_tokenizer_from_config

from proctor.budget.markers import Markers
from proctor.budget.processors.integration.arguments import (
    PROCESSORS,
    RESERVED_ARGUMENTS,
    WORKER_EXTENSION,
)
from proctor.budget.processors.params import with_markers
from proctor.budget.processors.tokenizer.marker_discovery import MarkerSource, find_markers


class Arguments(BaseModel):
    """The `args` of the application.

    Attributes:
        llm_config: a configuration of Ray's `LLMConfig`.
        runner: vLLM's model runner: "v2", which it uses on GPUs, or "v1", on CPUs.
        reasoning_parser: vLLM's reasoning parser that defines the thinking markers; None
            detects them in the chat template.
        thinking_start: the text of the start marker; overrides any parser's.
        thinking_end: the text of the end marker; overrides any parser's.
    """

    model_config = ConfigDict(extra="forbid")

    llm_config: dict[str, Any]
    runner: Literal["v1", "v2"] = "v2"
    reasoning_parser: str | None = None
    thinking_start: str | None = None
    thinking_end: str | None = None


def with_budgets(arguments: Arguments) -> dict[str, Any]:
    """Return the `LLMConfig` with the processor, the worker extension and the markers.

    Raises:
        ValueError: if the configuration sets one of them, or the markers are not found.
    """
    engine: dict[str, Any] = arguments.llm_config.get("engine_kwargs", {})
    for name in RESERVED_ARGUMENTS:
        if name in engine:
            raise ValueError(f"engine_kwargs.{name} is set by this application: leave it out")
    markers = _find_markers(arguments)
    return {
        **arguments.llm_config,
        "engine_kwargs": {
            **engine,
            "logits_processors": [PROCESSORS[arguments.runner == "v2"]],
            "worker_extension_cls": WORKER_EXTENSION,
            "additional_config": with_markers(engine.get("additional_config", {}), markers),
        },
    }


def _find_markers(arguments: Arguments) -> Markers:
    loading: Mapping[str, Any] = arguments.llm_config["model_loading_config"]
    source = loading.get("model_source") or loading["model_id"]
    config = AsyncEngineArgs(model=source).create_model_config()
    texts = MarkerSource(
        arguments.thinking_start, arguments.thinking_end, arguments.reasoning_parser
    )
    _, markers = find_markers(cached_tokenizer_from_config(config), config, texts)
    return markers
