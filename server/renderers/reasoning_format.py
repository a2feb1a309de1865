"""How a choice's two texts appear in a response, by the format that was asked for."""

from collections.abc import AsyncGenerator

from proctor.server.config.reasoning_format import ReasoningFormat
from proctor.server.generation.base import Channel, ChoiceResult, StreamItem, TextDelta, TokenUsage
from proctor.server.schemas.messages import CLOSE_TAG, OPEN_TAG

REASONING_KEYS = {
    ReasoningFormat.REASONING_CONTENT: ("reasoning_content",),
    ReasoningFormat.REASONING: ("reasoning",),
    ReasoningFormat.BOTH: ("reasoning_content", "reasoning"),
    ReasoningFormat.TAGS: ("content",),
    ReasoningFormat.HIDDEN: (),
}
"""The keys of a message or delta that carry the thinking."""

OWN_KEYS = {
    style: tuple(key for key in carrying if key != "content") or ("reasoning_content",)
    for style, carrying in REASONING_KEYS.items()
}
"""Those that are null where there is no thinking: many clients read them unasked."""


def keys(channel: Channel, style: ReasoningFormat) -> tuple[str, ...]:
    """The keys of a message or delta that carry this channel."""
    return ("content",) if channel is Channel.ANSWER else REASONING_KEYS[style]


async def with_tags(
    events: AsyncGenerator[StreamItem | ChoiceResult, None],
) -> AsyncGenerator[StreamItem | ChoiceResult, None]:
    """The same events, with `<think>` and `</think>` around the thinking."""
    thinking: dict[int, TokenUsage | None] = {}
    async for event in events:
        choice = event.choice
        if isinstance(event, TextDelta) and event.channel is Channel.REASONING:
            opened, thinking[choice] = choice in thinking, event.used
            yield event if opened else event._replace(text=OPEN_TAG + event.text)
            continue
        if choice in thinking:
            yield TextDelta(choice, Channel.REASONING, CLOSE_TAG, used=thinking.pop(choice))
        yield event
