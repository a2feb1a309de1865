"""Counts of speculative decoding's draft tokens, as workers report them to the gateway."""

from typing import NamedTuple


class DraftCounts(NamedTuple):
    """How many draft tokens of requests with a budget were proposed, and accepted.

    Attributes:
        thinking: proposed inside a thinking block.
        accepted_thinking: accepted of these.
        answer: proposed outside.
        accepted_answer: accepted of these.
    """

    thinking: int = 0
    accepted_thinking: int = 0
    answer: int = 0
    accepted_answer: int = 0
