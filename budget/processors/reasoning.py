"""Where a thinking ends, for vLLM's structured output, which binds the answer alone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vllm.reasoning import ReasoningParser, ReasoningParserManager

from budget.markers import Markers
from budget.processors import grammars

NAME = "proctor"
"""Ours among vLLM's reasoning parsers."""


class MarkerReasoningParser(ReasoningParser):
    """Finds the end marker by its tokens, whatever they are.

    The gateway splits the two channels itself: of vLLM's interface only what
    tells the engine when a grammar begins to hold is of use.
    """

    def __init__(
        self, tokenizer: Any, *args: Any, markers: Mapping[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(tokenizer, *args, **kwargs)
        self._end = list(Markers.from_wire(markers).end)

    def is_reasoning_end(self, input_ids: Sequence[int]) -> bool:
        """Whether the tokens end with the end marker."""
        return self._ends_at(input_ids, len(input_ids))

    def is_reasoning_end_streaming(
        self, input_ids: Sequence[int], delta_ids: Iterable[int]
    ) -> bool:
        """Whether an end marker comes to its end among the last tokens, `delta_ids`."""
        length = len(input_ids)
        fresh = range(length - len([*delta_ids]) + 1, length + 1)
        return any(self._ends_at(input_ids, end) for end in fresh)

    def _ends_at(self, tokens: Sequence[int], end: int) -> bool:
        return end >= len(self._end) and [*tokens[end - len(self._end) : end]] == self._end


ReasoningParserManager.register_module(NAME, module=MarkerReasoningParser)
# vLLM imports this in the engine's process, before the first request.
grammars.install()
