"""The local parts of a model that is served elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proctor.budget import Markers, Vocabulary
from proctor.server.engines.base import Codec
from proctor.server.engines.tool_calls import ToolFormat


@dataclass(frozen=True, slots=True)
class LocalModel:
    """The local parts of a model that is served elsewhere: all but its weights.

    Attributes:
        codec: its chat template and tokenizer.
        markers: its thinking markers and end-of-turn tokens.
        end_text: the end marker as text.
        vocabulary: what budgets need to know of the text of each token.
        defaults: its default sampling parameters, by vLLM's names.
        config: vLLM's configuration of it.
        tools: its tool call format, or None if no parser is configured.
    """

    codec: Codec
    markers: Markers
    end_text: str
    vocabulary: Vocabulary
    defaults: Mapping[str, Any]
    config: Any
    tools: ToolFormat | None = None
