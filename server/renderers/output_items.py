"""Builds the items of a response, with the events that a stream has of them."""

from collections.abc import Iterator, Sequence

from proctor.server.renderers.custom_input import CustomInput, is_complete
from proctor.server.renderers.item_builder import ItemBuilder, Place
from proctor.server.schemas.openai_responses.events import (
    ResponseEvent,
)
from proctor.server.schemas.openai_responses.response import (
    AnswerText,
    ItemStatus,
    OutputCustomCall,
    OutputFunctionCall,
    OutputMessage,
)
from proctor.server.schemas.openai_responses.tool_names import ToolOrigin
from proctor.server.schemas.responses import TokenScore


class MessageItemBuilder(ItemBuilder):
    """Builds a message."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._scores: list[TokenScore] = []
        self._has_begun = False

    def item(self, status: ItemStatus) -> OutputMessage:
        return {
            "type": "message",
            "id": self._place.id,
            "role": "assistant",
            "status": status,
            "content": [self._part] if self._has_begun else [],
        }

    @property
    def _part(self) -> AnswerText:
        return {
            "type": "output_text",
            "text": self.text,
            "annotations": [],
            "logprobs": [*self._scores],
        }

    def start(self) -> Iterator[ResponseEvent]:
        yield self._place.added(self.item("in_progress"))
        self._has_begun = True
        yield {
            "type": "response.content_part.added",
            **self._place.head(),
            "content_index": 0,
            "part": self._part,
        }

    def add(self, text: str, scores: Sequence[TokenScore] = ()) -> Iterator[ResponseEvent]:
        self._texts.append(text)
        self._scores += scores
        yield {
            "type": "response.output_text.delta",
            **self._place.head(),
            "content_index": 0,
            "delta": text,
            "logprobs": scores,
        }

    def end(self, status: ItemStatus) -> Iterator[ResponseEvent]:
        part = self._part
        yield {
            "type": "response.output_text.done",
            **self._place.head(),
            "content_index": 0,
            "text": part["text"],
            "logprobs": part["logprobs"],
        }
        yield {
            "type": "response.content_part.done",
            **self._place.head(),
            "content_index": 0,
            "part": part,
        }
        yield self._place.done(self.item(status))


class CallItemBuilder(ItemBuilder):
    """Builds a tool call."""

    def __init__(self, place: Place, call_id: str, origin: ToolOrigin) -> None:
        """Begin the item.

        Args:
            place: the place of the item.
            call_id: the ID of the call.
            origin: the tool that the model calls.
        """
        super().__init__(place)
        self._call_id = call_id
        self._origin = origin

    @property
    def is_complete(self) -> bool:
        """Whether the arguments are complete."""
        return is_complete(self.text)

    def start(self) -> Iterator[ResponseEvent]:
        yield self._place.added(self.item("in_progress"))


class FunctionCallBuilder(CallItemBuilder):
    """Builds a function call."""

    def item(self, status: ItemStatus) -> OutputFunctionCall:
        item: OutputFunctionCall = {
            "type": "function_call",
            "id": self._place.id,
            "status": status,
            "call_id": self._call_id,
            "name": self._origin.name,
            "arguments": self.text,
        }
        if self._origin.namespace is not None:
            item["namespace"] = self._origin.namespace
        return item

    def add(self, text: str, scores: Sequence[TokenScore] = ()) -> Iterator[ResponseEvent]:
        if not text:
            return
        self._texts.append(text)
        yield {
            "type": "response.function_call_arguments.delta",
            **self._place.head(),
            "delta": text,
        }

    def end(self, status: ItemStatus) -> Iterator[ResponseEvent]:
        yield {
            "type": "response.function_call_arguments.done",
            **self._place.head(),
            "name": self._origin.name,
            "arguments": self.text,
        }
        yield self._place.done(self.item(status))


class CustomCallBuilder(CallItemBuilder):
    """Builds a call of a custom tool."""

    def __init__(self, place: Place, call_id: str, origin: ToolOrigin) -> None:
        super().__init__(place, call_id, origin)
        self._input = CustomInput()

    @property
    def is_complete(self) -> bool:
        return is_complete(self._input.arguments)

    def item(self, status: ItemStatus) -> OutputCustomCall:
        item: OutputCustomCall = {
            "type": "custom_tool_call",
            "id": self._place.id,
            "status": status,
            "call_id": self._call_id,
            "name": self._origin.name,
            "input": self._input.text,
        }
        if self._origin.namespace is not None:
            item["namespace"] = self._origin.namespace
        return item

    def add(self, text: str, scores: Sequence[TokenScore] = ()) -> Iterator[ResponseEvent]:
        yield from self._delta(self._input.push(text))

    def _delta(self, text: str) -> Iterator[ResponseEvent]:
        if text:
            yield {
                "type": "response.custom_tool_call_input.delta",
                **self._place.head(),
                "delta": text,
            }

    def end(self, status: ItemStatus) -> Iterator[ResponseEvent]:
        yield from self._delta(self._input.close())
        yield {
            "type": "response.custom_tool_call_input.done",
            **self._place.head(),
            "input": self._input.text,
        }
        yield self._place.done(self.item(status))
