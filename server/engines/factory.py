"""Creates the engine that the settings select."""

import math
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from proctor.server.config.budgets import DEFAULT_TIERS
from proctor.server.config.engine import CompletionsServer, ReplicaSettings
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine
from proctor.server.engines.completions.engine import CompletionsEngine
from proctor.server.engines.completions.upstream import Upstream
from proctor.server.engines.garbage import no_garbage_collection
from proctor.server.engines.replicas.cache_salt import CacheSalt
from proctor.server.engines.vllm.preload import preload

if TYPE_CHECKING:
    from proctor.budget.processors.tokenizer.marker_discovery import MarkerSource
    from proctor.server.engines.grammars.pool import GrammarPool

STEP_TIMEOUT = "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"


def load_engine(settings: Settings) -> Engine:
    """Load the model and return its engine; block until it is ready.

    Raises:
        ValueError: if the settings do not fit the model.
    """
    engine = _load(settings)
    check_tiers(settings, engine.model.context_length)
    return engine


def further_engines(settings: Settings) -> dict[str, Callable[[], Engine]]:
    """Return what loads the engine of each of `settings.models`, by its name."""
    return {
        model.name: partial(load_engine, settings.of_model(model.name)) for model in settings.models
    }


def check_tiers(settings: Settings, context: int) -> None:
    """Check that the operator's tiers fit the context. The default tiers are clamped instead.

    Tiers that another model serves are clamped to its context.

    Raises:
        ConfigError: if a tier does not fit.
    """
    if settings.tiers == DEFAULT_TIERS:
        return
    for tier in settings.tiers:
        if tier.model is None and max(tier.min_tokens, tier.max_tokens) > context:
            raise ConfigError(
                f"tiers: min_tokens and max_tokens of '{tier.name}' must not exceed the model's "
                f"context of {context} tokens"
            )


def _load(settings: Settings) -> Engine:
    remote = settings.remote_engine
    if remote is None:
        preload()  # imports vLLM in another process, while this one does
    # Imported here: importing vLLM takes seconds, and the gateway also runs without it.
    with no_garbage_collection():
        from proctor.budget.processors.tokenizer.marker_discovery import MarkerSource
        from proctor.server.engines.grammars.pool import GrammarPool
        from proctor.server.engines.vllm.engine import VllmEngine

    markers = MarkerSource(
        settings.thinking_start, settings.thinking_end, settings.reasoning_parser
    )

    def grammars(config: Any) -> GrammarPool:
        return GrammarPool(config, settings.grammars)

    if isinstance(remote, CompletionsServer):
        return _load_completions(settings, remote, markers)
    if isinstance(remote, ReplicaSettings):
        return _load_replicas(settings, remote, markers, grammars)
    # vLLM kills an engine whose step takes longer.
    os.environ.setdefault(STEP_TIMEOUT, str(math.ceil(settings.limits.busy_stall_seconds)))
    return VllmEngine.load(
        settings.model_path,
        name=settings.model_name,
        arguments=settings.engine,
        markers=markers,
        grammars=grammars,
        tool_call_parser=settings.tool_call_parser,
    )


def _load_completions(
    settings: Settings, server: CompletionsServer, markers: "MarkerSource"
) -> Engine:
    from proctor.server.engines.vllm.tokenizer_bundle import load_local

    return CompletionsEngine.load(
        lambda: Upstream(server.base_url, server.api_key.get_secret_value()),
        load_local(settings.model_path, markers, settings.tool_call_parser),
        name=settings.model_name,
        known_as=(settings.model_name, settings.model_path),
        context_length=server.max_model_len,
    )


def _load_replicas(
    settings: Settings,
    replicas: ReplicaSettings,
    markers: "MarkerSource",
    grammars: "Callable[[Any], GrammarPool]",
) -> Engine:
    from proctor.server.engines.replicas.engine import ReplicaEngine
    from proctor.server.engines.vllm.tokenizer_bundle import load_local

    return ReplicaEngine.load(
        load_local(settings.model_path, markers, settings.tool_call_parser, binds=True),
        replicas.urls,
        replicas.api_key.get_secret_value(),
        name=settings.model_name,
        known_as=(settings.model_name, settings.model_path),
        context_length=replicas.max_model_len,
        grammars=grammars,
        salt=CacheSalt(replicas.cache_salt.get_secret_value()),
    )
