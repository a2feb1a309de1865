"""What a choice emits: text of its two channels, and tool calls."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from proctor.server.engines.base import TokenLogprob
from proctor.server.engines.tool_calls import CallDelta


class Channel(StrEnum):
    """The two texts of a choice."""

    REASONING = "reasoning"
    ANSWER = "answer"


class TokenUsage(NamedTuple):
    """The tokens that one choice has generated so far: all of them, and those of its thinking."""

    tokens: int
    thinking: int


class TextDelta(NamedTuple):
    """The next text of one channel of one choice.

    Attributes:
        choice: index of the choice.
        channel: the channel that the text belongs to.
        text: may be empty, with log probabilities.
        scores: log probabilities of the channel's tokens since its previous delta, if requested.
        token_ids: ids of the choice's tokens since its previous delta, if requested.
        used: the choice's token usage so far, if requested.
        thinking_tokens: the choice's thinking tokens up to this delta.
    """

    choice: int
    channel: Channel
    text: str
    scores: tuple[TokenLogprob, ...] = ()
    token_ids: tuple[int, ...] = ()
    used: TokenUsage | None = None
    thinking_tokens: int = 0

    def joined(self, following: Sequence["TextDelta"]) -> "TextDelta":
        """Return one delta of this one and those that follow it in the same channel."""
        deltas = (self, *following)
        return following[-1]._replace(
            text="".join([delta.text for delta in deltas]),
            scores=tuple(score for delta in deltas for score in delta.scores),
            token_ids=tuple(token for delta in deltas for token in delta.token_ids),
        )


class ToolCallDelta(NamedTuple):
    """The next fragment of a tool call in one choice's answer.

    Attributes:
        choice: index of the choice.
        delta: the fragment.
        used: the choice's token usage so far, if requested.
        thinking_tokens: the choice's thinking tokens up to this delta.
    """

    choice: int
    delta: CallDelta
    used: TokenUsage | None = None
    thinking_tokens: int = 0

    @property
    def channel(self) -> Channel:
        """The channel of tool calls, the answer."""
        return Channel.ANSWER
