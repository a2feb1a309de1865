"""Where a response carries the thinking."""

from enum import StrEnum


class ReasoningFormat(StrEnum):
    """Where in a response the thinking stands."""

    REASONING_CONTENT = "reasoning_content"
    REASONING = "reasoning"
    BOTH = "both"
    TAGS = "tags"
    HIDDEN = "hidden"
