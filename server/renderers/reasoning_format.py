"""Where a response has the thinking and the answer, by `reasoning_format`."""

from collections.abc import AsyncGenerator, Mapping
from typing import Literal

from proctor.server.channels.deltas import Channel, TextDelta, TokenUsage
from proctor.server.config.thinking.reasoning_format import ReasoningFormat
from proctor.server.generation.base import ChoiceResult, StreamItem
from proctor.server.schemas.messages import CLOSE_TAG, OPEN_TAG

ReasoningKey = Literal["reasoning_content", "reasoning"]
MessageKey = Literal["content", "reasoning_content", "reasoning"]

REASONING_KEYS: Mapping[ReasoningFormat, tuple[MessageKey, ...]] = {
    ReasoningFormat.REASONING_CONTENT: ("reasoning_content",),
    ReasoningFormat.REASONING: ("reasoning",),
    ReasoningFormat.BOTH: ("reasoning_content", "reasoning"),
    ReasoningFormat.TAGS: ("content",),
    ReasoningFormat.HIDDEN: (),
}
"""The keys of a message or delta that have the text of the thinking."""

NULLABLE_KEYS: Mapping[ReasoningFormat, tuple[ReasoningKey, ...]] = {
    ReasoningFormat.REASONING_CONTENT: ("reasoning_content",),
    ReasoningFormat.REASONING: ("reasoning",),
    ReasoningFormat.BOTH: ("reasoning_content", "reasoning"),
    ReasoningFormat.TAGS: ("reasoning_content",),
    ReasoningFormat.HIDDEN: ("reasoning_content",),
}
"""The keys that are null where there is no thinking, as many clients read them unconditionally."""


def message_keys(channel: Channel, reasoning_format: ReasoningFormat) -> tuple[MessageKey, ...]:
    """Return the keys of a message or delta that have the text of a channel."""
    return ("content",) if channel is Channel.ANSWER else REASONING_KEYS[reasoning_format]


async def with_tags(
    events: AsyncGenerator[StreamItem | ChoiceResult, None],
) -> AsyncGenerator[StreamItem | ChoiceResult, None]:
    """Yield the events with `<think>` and `</think>` around the thinking."""
    open_choices: dict[int, TokenUsage | None] = {}
    async for event in events:
        choice = event.choice
        if isinstance(event, TextDelta) and event.channel is Channel.REASONING:
            is_open, open_choices[choice] = choice in open_choices, event.used
            yield event if is_open else event._replace(text=OPEN_TAG + event.text)
            continue
        if choice in open_choices:
            used = open_choices.pop(choice)
            yield TextDelta(choice, Channel.REASONING, CLOSE_TAG, used=used)
        yield event
