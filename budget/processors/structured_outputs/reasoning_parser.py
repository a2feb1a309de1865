"""A reasoning parser for vLLM, so that structured output applies to the answer only."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vllm.reasoning import ReasoningParser, ReasoningParserManager

from proctor.budget.markers import Markers
from proctor.budget.matcher import Crossing, MarkerMatcher, matcher_of
from proctor.budget.processors.structured_outputs import grammars
from proctor.budget.processors.tokenizer.vocabulary import read_vocabulary
from proctor.budget.vocabulary import ATOM, UNKNOWN_VOCABULARY

NAME = "proctor"
"""The parser's name in vLLM's registry."""


class MarkerReasoningParser(ReasoningParser):
    """Finds the end marker, however it is tokenized.

    The gateway splits reasoning and answer itself. Of vLLM's interface, only the methods
    that tell the engine when to apply a grammar are implemented.
    """

    def __init__(
        self,
        tokenizer: Any,
        *args: Any,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Create a parser for one request.

        Args:
            tokenizer: the model's tokenizer.
            args: vLLM's further arguments.
            chat_template_kwargs: the markers, as `parser_arguments` returns them; vLLM passes on
                no other arguments from its endpoints. Without markers, as in a request to vLLM's
                own chat endpoint, there is no reasoning.
            kwargs: vLLM's further arguments.
        """
        super().__init__(tokenizer, *args, **kwargs)
        self._matcher: MarkerMatcher | None = None
        if wire := (chat_template_kwargs or {}).get(NAME):
            markers = Markers.from_wire(wire)
            vocabulary = UNKNOWN_VOCABULARY
            if _has_text(markers):
                vocabulary = read_vocabulary(tokenizer, len(tokenizer))
            self._matcher = matcher_of(markers, vocabulary)

    def is_reasoning_end(self, input_ids: Sequence[int]) -> bool:
        """Return whether the tokens end with the end marker."""
        return self.is_reasoning_end_streaming(input_ids, input_ids[-1:])

    def is_reasoning_end_streaming(
        self, input_ids: Sequence[int], delta_ids: Iterable[int]
    ) -> bool:
        """Return whether an end marker is completed in `delta_ids`, the last tokens."""
        new_tokens = len([*delta_ids])
        matcher = self._matcher
        if matcher is None:
            return True
        # A marker has at least one symbol per token, so `depth` bounds its tokens.
        tail = input_ids[-(new_tokens + max(matcher.depth)) :]
        state, ends = matcher.inside, False
        for offset, token in enumerate(tail, new_tokens - len(tail)):
            step = matcher.step(state, token)
            closes = step.crossing is Crossing.CLOSED
            state = matcher.inside if closes else step.state
            ends = ends or (closes and offset >= 0)
        return ends


def parser_arguments(markers: Markers) -> dict[str, Any]:
    """Return the `reasoning_parser_kwargs` of a request."""
    return {"chat_template_kwargs": {NAME: markers.to_wire()}}


def _has_text(markers: Markers) -> bool:
    """Return whether the markers contain ordinary text, which can be tokenized in many ways."""
    return any(symbol < ATOM for symbol in (*markers.start_symbols, *markers.end_symbols))


ReasoningParserManager.register_module(NAME, module=MarkerReasoningParser)
# vLLM imports this module in the engine's process before the first request.
grammars.install()
