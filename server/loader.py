"""Makes the engine that the settings ask for."""

from typing import TYPE_CHECKING

from server.engines.base import Engine
from server.engines.completions import CompletionsEngine
from server.engines.upstream import Upstream
from server.settings import CompletionsServer, Settings

if TYPE_CHECKING:
    from server.engines.vllm import MarkerSource


def load_engine(settings: Settings) -> Engine:
    """Load the model; blocks until it can answer.

    Raises:
        ValueError: if the settings do not fit the model.
    """
    # Imported here: vLLM takes seconds to import, and a gateway without it is of use too.
    from server.engines.vllm import MarkerSource, VllmEngine

    markers = MarkerSource(
        settings.thinking_start, settings.thinking_end, settings.reasoning_parser
    )
    if server := settings.completions_server:
        return _load_completions(settings, server, markers)
    return VllmEngine.load(
        settings.model_path,
        name=settings.model_name,
        arguments=settings.engine,
        markers=markers,
    )


def _load_completions(
    settings: Settings, server: CompletionsServer, markers: "MarkerSource"
) -> Engine:
    from server.engines.local import load_local

    return CompletionsEngine.load(
        lambda: Upstream(server.base_url, server.api_key.get_secret_value()),
        load_local(settings.model_path, markers),
        name=settings.model_name,
        known_as=(settings.model_name, settings.model_path),
        context_length=server.max_model_len,
    )
