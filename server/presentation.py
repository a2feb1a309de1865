"""How a choice's two texts appear in a response, by the format that was asked for."""

from collections.abc import AsyncGenerator

from server.channels import Channel, Piece
from server.messages import CLOSE_TAG, OPEN_TAG
from server.schemas import ReasoningFormat
from server.turn import End, Told

REASONING_KEYS = {
    ReasoningFormat.REASONING_CONTENT: ("reasoning_content",),
    ReasoningFormat.REASONING: ("reasoning",),
    ReasoningFormat.BOTH: ("reasoning_content", "reasoning"),
    ReasoningFormat.TAGS: ("content",),
    ReasoningFormat.HIDDEN: (),
}
"""The keys of a message or delta that carry the thinking."""


def keys(channel: Channel, style: ReasoningFormat) -> tuple[str, ...]:
    """The keys of a message or delta that carry this channel."""
    return ("content",) if channel is Channel.ANSWER else REASONING_KEYS[style]


async def with_tags(
    events: AsyncGenerator[Told | End, None],
) -> AsyncGenerator[Told | End, None]:
    """The same events, with `<think>` and `</think>` around the thinking."""
    thinking: set[int] = set()
    async for event in events:
        if isinstance(event, Piece) and event.channel is Channel.REASONING:
            opened, text = event.choice in thinking, event.text
            thinking.add(event.choice)
            yield event if opened else event._replace(text=OPEN_TAG + text)
            continue
        choice = event.choice
        if choice in thinking:
            thinking.remove(choice)
            yield Piece(choice, Channel.REASONING, CLOSE_TAG)
        yield event
