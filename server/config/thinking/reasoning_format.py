"""The placement of the thinking in responses."""

from enum import StrEnum


class ReasoningFormat(StrEnum):
    """The field of a message that has the thinking; `hidden` leaves it out."""

    REASONING_CONTENT = "reasoning_content"
    REASONING = "reasoning"
    BOTH = "both"
    TAGS = "tags"
    HIDDEN = "hidden"
