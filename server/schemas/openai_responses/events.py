"""The events of streams of OpenAI's Responses API."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from proctor.server.schemas.openai_responses.response import (
    AnswerText,
    OutputItem,
    ReasoningText,
    ResponseObject,
    SummaryText,
)
from proctor.server.schemas.responses import ResponseSchema, TokenScore

Number = Annotated[int, Field(description="The number of the event in the stream.")]
ItemIndex = Annotated[int, Field(description="The index of the item in the output.")]
ItemId = Annotated[str, Field(description="The identifier of the item.")]
"""Docstrings of inherited fields would not be part of `/openapi.json`."""


class EventBase(ResponseSchema):
    """The fields of every event."""

    sequence_number: Number


class ItemEventBase(EventBase):
    """The fields of events of an item."""

    output_index: ItemIndex
    item_id: ItemId


class ResponseCreated(EventBase):
    """The first event, with a response that has no output yet."""

    type: Literal["response.created"]
    """The type of the event."""
    response: ResponseObject
    """The response."""


class ResponseInProgress(EventBase):
    """The second event; while nothing is generated, it is repeated to keep the connection open."""

    type: Literal["response.in_progress"]
    """The type of the event."""
    response: ResponseObject
    """The response, without its output."""


class ResponseEnd(EventBase):
    """The last event, with the whole response."""

    type: Literal["response.completed", "response.incomplete", "response.failed"]
    """The type of the event."""
    response: ResponseObject
    """The response."""


class ItemAdded(EventBase):
    """The beginning of an item."""

    type: Literal["response.output_item.added"]
    """The type of the event."""
    output_index: int
    """The index of the item in the output."""
    item: OutputItem
    """The item, which is empty."""


class ItemDone(EventBase):
    """The end of an item."""

    type: Literal["response.output_item.done"]
    """The type of the event."""
    output_index: int
    """The index of the item in the output."""
    item: OutputItem
    """The item."""


class PartAdded(ItemEventBase):
    """The beginning of a content part."""

    type: Literal["response.content_part.added"]
    """The type of the event."""
    content_index: int
    """The index of the part in the item's content, always 0."""
    part: AnswerText | ReasoningText
    """The part, which is empty."""


class PartDone(ItemEventBase):
    """The end of a content part."""

    type: Literal["response.content_part.done"]
    """The type of the event."""
    content_index: int
    """The index of the part in the item's content, always 0."""
    part: AnswerText | ReasoningText
    """The part."""


class OutputTextDelta(ItemEventBase):
    """The next fragment of the answer."""

    type: Literal["response.output_text.delta"]
    """The type of the event."""
    content_index: int
    """The index of the part in the item's content, always 0."""
    delta: str
    """The fragment."""
    logprobs: Sequence[TokenScore]
    """The log probabilities of the fragment's tokens, if requested."""


class OutputTextDone(ItemEventBase):
    """The end of a text of the answer."""

    type: Literal["response.output_text.done"]
    """The type of the event."""
    content_index: int
    """The index of the part in the item's content, always 0."""
    text: str
    """The text."""
    logprobs: Sequence[TokenScore]
    """The log probabilities of the text's tokens, if requested."""


class ReasoningTextDelta(ItemEventBase):
    """The next fragment of the thinking."""

    type: Literal["response.reasoning_text.delta"]
    """The type of the event."""
    content_index: int
    """The index of the part in the item's content, always 0."""
    delta: str
    """The fragment."""


class ReasoningTextDone(ItemEventBase):
    """The end of a text of the thinking."""

    type: Literal["response.reasoning_text.done"]
    """The type of the event."""
    content_index: int
    """The index of the part in the item's content, always 0."""
    text: str
    """The text."""


class SummaryPartAdded(ItemEventBase):
    """The beginning of a part of the summary."""

    type: Literal["response.reasoning_summary_part.added"]
    """The type of the event."""
    summary_index: int
    """The index of the part in the summary, always 0."""
    part: SummaryText
    """The part, which is empty."""


class SummaryPartDone(ItemEventBase):
    """The end of a part of the summary."""

    type: Literal["response.reasoning_summary_part.done"]
    """The type of the event."""
    summary_index: int
    """The index of the part in the summary, always 0."""
    part: SummaryText
    """The part."""


class SummaryTextDelta(ItemEventBase):
    """The next fragment of the summary."""

    type: Literal["response.reasoning_summary_text.delta"]
    """The type of the event."""
    summary_index: int
    """The index of the part in the summary, always 0."""
    delta: str
    """The fragment."""


class SummaryTextDone(ItemEventBase):
    """The end of a text of the summary."""

    type: Literal["response.reasoning_summary_text.done"]
    """The type of the event."""
    summary_index: int
    """The index of the part in the summary, always 0."""
    text: str
    """The text."""


class ArgumentsDelta(ItemEventBase):
    """The next fragment of a function call's arguments."""

    type: Literal["response.function_call_arguments.delta"]
    """The type of the event."""
    delta: str
    """The fragment, as JSON."""


class ArgumentsDone(ItemEventBase):
    """The end of a function call's arguments."""

    type: Literal["response.function_call_arguments.done"]
    """The type of the event."""
    name: str
    """The name of the function."""
    arguments: str
    """The arguments as JSON."""


class InputDelta(ItemEventBase):
    """The next fragment of a custom tool's input."""

    type: Literal["response.custom_tool_call_input.delta"]
    """The type of the event."""
    delta: str
    """The fragment."""


class InputDone(ItemEventBase):
    """The end of a custom tool's input."""

    type: Literal["response.custom_tool_call_input.done"]
    """The type of the event."""
    input: str
    """The input."""


ResponseEvent = (
    ResponseCreated
    | ResponseInProgress
    | ResponseEnd
    | ItemAdded
    | ItemDone
    | PartAdded
    | PartDone
    | OutputTextDelta
    | OutputTextDone
    | ReasoningTextDelta
    | ReasoningTextDone
    | SummaryPartAdded
    | SummaryPartDone
    | SummaryTextDelta
    | SummaryTextDone
    | ArgumentsDelta
    | ArgumentsDone
    | InputDelta
    | InputDone
)

EVENTS: Mapping[str, type] = {
    "response.created": ResponseCreated,
    "response.in_progress": ResponseInProgress,
    "response.output_item.added": ItemAdded,
    "response.output_item.done": ItemDone,
    "response.content_part.added": PartAdded,
    "response.content_part.done": PartDone,
    "response.output_text.delta": OutputTextDelta,
    "response.output_text.done": OutputTextDone,
    "response.reasoning_text.delta": ReasoningTextDelta,
    "response.reasoning_text.done": ReasoningTextDone,
    "response.reasoning_summary_part.added": SummaryPartAdded,
    "response.reasoning_summary_part.done": SummaryPartDone,
    "response.reasoning_summary_text.delta": SummaryTextDelta,
    "response.reasoning_summary_text.done": SummaryTextDone,
    "response.function_call_arguments.delta": ArgumentsDelta,
    "response.function_call_arguments.done": ArgumentsDone,
    "response.custom_tool_call_input.delta": InputDelta,
    "response.custom_tool_call_input.done": InputDone,
    "response.completed": ResponseEnd,
    "response.incomplete": ResponseEnd,
    "response.failed": ResponseEnd,
}
"""The events of a stream by name."""

LastEvent = Literal["response.completed", "response.incomplete", "response.failed"]
LAST_EVENTS: Mapping[str, LastEvent] = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "cancelled": "response.incomplete",
    "failed": "response.failed",
}
"""The last event of a stream, by the status of its response."""
