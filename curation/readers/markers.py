"""Splits a text at the markers around its thinking."""

import re
from dataclasses import dataclass

from proctor.budget.marker_texts import TEMPLATE_PAIRS

OPEN_THOUGHTS = ("<|begin_of_thought|>", "<|end_of_thought|>")
SOLUTION = re.compile(r"<\|(?:begin|end)_of_solution\|>")
PAIRS = (*TEMPLATE_PAIRS, OPEN_THOUGHTS)


@dataclass(frozen=True, slots=True)
class Thought:
    """A text's thinking and answer.

    Attributes:
        before: the text before the thinking.
        trace: the thinking, without markers.
        answer: the text after it; empty if the thinking is not closed.
        markers: the pair that encloses it, or None if the text has none.
    """

    before: str
    trace: str
    answer: str
    markers: tuple[str, str] | None


def split_thinking(text: str) -> Thought:
    """Split a text at the first pair of known markers.

    A text may have the end marker only, as templates can open the thinking in the prompt, or
    the start marker only, if the thinking was cut off.
    """
    for start, end in PAIRS:
        if start not in text and end not in text:
            continue
        before, opened, rest = text.partition(start)
        if not opened:
            before, rest = "", text
        trace, _, answer = rest.partition(end)
        answer = SOLUTION.sub("", answer)
        return Thought(before.strip(), trace.strip(), answer.strip(), (start, end))
    return Thought("", "", text.strip(), None)
