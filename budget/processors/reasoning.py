"""Where a thinking ends, for vLLM's structured output, which binds the answer alone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vllm.reasoning import ReasoningParser, ReasoningParserManager

from proctor.budget.markers import Markers
from proctor.budget.matcher import Crossing, matcher_of
from proctor.budget.processors import grammars
from proctor.budget.processors.tokenizer_vocabulary import read_vocabulary
from proctor.budget.vocabulary import ATOM, UNKNOWN_VOCABULARY

NAME = "proctor"
"""Ours among vLLM's reasoning parsers."""


class MarkerReasoningParser(ReasoningParser):
    """Finds the end marker, whatever tokens spell it.

    The gateway splits the two channels itself: of vLLM's interface only what
    tells the engine when a grammar begins to hold is of use.
    """

    def __init__(
        self, tokenizer: Any, *args: Any, markers: Mapping[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(tokenizer, *args, **kwargs)
        found = Markers.from_wire(markers)
        known = (
            read_vocabulary(tokenizer, len(tokenizer)) if _is_text(found) else UNKNOWN_VOCABULARY
        )
        self._matcher = matcher_of(found, known)

    def is_reasoning_end(self, input_ids: Sequence[int]) -> bool:
        """Whether the tokens end with the end marker."""
        return self.is_reasoning_end_streaming(input_ids, input_ids[-1:])

    def is_reasoning_end_streaming(
        self, input_ids: Sequence[int], delta_ids: Iterable[int]
    ) -> bool:
        """Whether an end marker comes to its end among the last tokens, `delta_ids`."""
        fresh = len([*delta_ids])
        matcher = self._matcher
        # A marker has no more tokens than symbols.
        tail = input_ids[-(fresh + max(matcher.depth)) :]
        state, ends = matcher.inside, False
        for at, token in enumerate(tail, fresh - len(tail)):
            step = matcher.step(state, token)
            closes = step.crossing is Crossing.CLOSED
            state = matcher.inside if closes else step.state
            ends = ends or (closes and at >= 0)
        return ends


def _is_text(markers: Markers) -> bool:
    """Whether some part of the markers may be spelled by other tokens than their own."""
    return any(symbol < ATOM for symbol in (*markers.start_symbols, *markers.end_symbols))


ReasoningParserManager.register_module(NAME, module=MarkerReasoningParser)
# vLLM imports this in the engine's process, before the first request.
grammars.install()
