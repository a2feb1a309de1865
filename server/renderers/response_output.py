"""Builds the output of a response from the items of its choice."""

from collections.abc import Callable, Iterator, Mapping

from proctor.server.channels.deltas import Channel, TextDelta, ToolCallDelta
from proctor.server.engines.base import Finish
from proctor.server.generation.base import ChoiceResult, Progress, StreamItem
from proctor.server.renderers.blocks import BlockKind, kind_of
from proctor.server.renderers.item_builder import ItemBuilder, Place
from proctor.server.renderers.logprobs import token_score
from proctor.server.renderers.output_items import (
    CallItemBuilder,
    CustomCallBuilder,
    FunctionCallBuilder,
    MessageItemBuilder,
)
from proctor.server.renderers.reasoning_items import (
    HiddenItemBuilder,
    ReasoningItemBuilder,
    SummaryItemBuilder,
)
from proctor.server.schemas.openai_responses.events import ResponseEvent
from proctor.server.schemas.openai_responses.item_ids import item_id
from proctor.server.schemas.openai_responses.response import ItemStatus, OutputItem
from proctor.server.schemas.openai_responses.tool_names import ToolOrigin
from proctor.server.turns.turn import ThinkingRecorder


class ResponseOutput:
    """The output of a response, with the events that a stream has of it.

    Attributes:
        items: the items that are complete, or were cut off.
    """

    def __init__(
        self,
        response_id: str,
        origins: Mapping[str, ToolOrigin],
        recorder: ThinkingRecorder,
        numbers: Iterator[int],
        *,
        summarizes: bool,
        hides: bool,
        maximum: int | None,
        token_bytes: Callable[[int], bytes],
    ) -> None:
        """Begin an output.

        Args:
            response_id: the id of the response.
            origins: the tools that functions were made of, by the names of the functions.
            recorder: issues the records of the thinking.
            numbers: the numbers of the events.
            summarizes: whether the text of the thinking is in its summary.
            hides: whether the output has no text of the thinking.
            maximum: the maximum number of thinking tokens.
            token_bytes: returns the bytes of a token.
        """
        self.items: list[OutputItem] = []
        self._response_id = response_id
        self._origins = origins
        self._recorder = recorder
        self._numbers = numbers
        self._summarizes = summarizes
        self._hides = hides
        self._maximum = maximum
        self._token_bytes = token_bytes
        self._kind: BlockKind | None = None
        self._open: ItemBuilder | None = None

    def add(self, item: StreamItem) -> list[ResponseEvent]:
        """Add the next item, and return its events."""
        match item:
            case TextDelta() | ToolCallDelta():
                return [*self._add(item)]
            case Progress() if isinstance(self._open, HiddenItemBuilder):
                return [*self._open.progress(item.tokens)]
            case _:
                return []

    def finish(self, result: ChoiceResult) -> list[ResponseEvent]:
        """End the output, and return the last events.

        A call that was cut off has none, since clients run tools when they receive its end.
        """
        is_cut = result.finish is Finish.LENGTH
        tokens = result.thinking_tokens
        if isinstance(self._open, CallItemBuilder):
            if is_cut and not self._open.is_complete:
                self.items.append(self._open.item("incomplete"))
                return []
            return self._close("completed", tokens)
        events = self._close("incomplete" if is_cut else "completed", tokens)
        if not is_cut and all(item["type"] == "reasoning" for item in self.items):
            empty = self._begin(TextDelta(result.choice, Channel.ANSWER, ""))
            events += [*empty.start(), *self._close("completed", tokens)]
        return events

    def _add(self, item: TextDelta | ToolCallDelta) -> Iterator[ResponseEvent]:
        text = item.text if isinstance(item, TextDelta) else item.delta.arguments
        builder = self._open
        if builder is None or kind_of(item) != self._kind:
            if isinstance(item, TextDelta) and not text:
                return  # log probabilities of the tokens of a call
            yield from self._close("completed", item.thinking_tokens)
            builder = self._begin(item)
            yield from builder.start()
        if item.channel is Channel.REASONING:
            self._recorder.add(text)
        scores = item.scores if isinstance(item, TextDelta) else ()
        yield from builder.add(text, [token_score(each, self._token_bytes) for each in scores])

    def _begin(self, item: TextDelta | ToolCallDelta) -> ItemBuilder:
        self._kind = kind_of(item)
        self._open = self._builder(item)
        return self._open

    def _builder(self, item: TextDelta | ToolCallDelta) -> ItemBuilder:
        if isinstance(item, ToolCallDelta):
            name = item.delta.name or ""
            origin = self._origins.get(name) or ToolOrigin("", name, None, is_custom=False)
            call_id = item.delta.id or ""
            if origin.is_custom:
                return CustomCallBuilder(self._place("ctc"), call_id, origin)
            return FunctionCallBuilder(self._place("fc"), call_id, origin)
        if item.channel is Channel.ANSWER:
            return MessageItemBuilder(self._place("msg"))
        if self._hides:
            return HiddenItemBuilder(self._place("rs"), self._maximum)
        if self._summarizes:
            return SummaryItemBuilder(self._place("rs"))
        return ReasoningItemBuilder(self._place("rs"))

    def _place(self, prefix: str) -> Place:
        index = len(self.items)
        return Place(index, item_id(prefix, self._response_id, index), self._numbers)

    def _close(self, status: ItemStatus, thinking_tokens: int) -> list[ResponseEvent]:
        """End the open item, if there is one."""
        builder, self._open, self._kind = self._open, None, None
        if builder is None:
            return []
        events: list[ResponseEvent] = []
        if isinstance(builder, HiddenItemBuilder):
            events += builder.progress(thinking_tokens, last=True)
        if isinstance(builder, ReasoningItemBuilder):
            builder.record = self._recorder.end(thinking_tokens)
        events += builder.end(status)
        self.items.append(builder.item(status))
        return events
