"""Makes the engine that the settings ask for."""

from server.engines.base import Engine
from server.settings import Settings


def load_engine(settings: Settings) -> Engine:
    """Load the model; blocks until it can answer.

    Raises:
        ValueError: if the settings do not fit the model.
    """
    # Imported here: vLLM takes seconds to import, and a gateway without it is of use too.
    from server.engines.vllm import MarkerSource, VllmEngine

    return VllmEngine.load(
        settings.model_path,
        name=settings.model_name,
        arguments=settings.engine,
        markers=MarkerSource(
            settings.thinking_start, settings.thinking_end, settings.reasoning_parser
        ),
    )
