"""The summary of thinking that is hidden: how much there was."""

import re

LINE = r"Thought for [\d,]+(?: of [\d,]+)? tokens?\."
SUMMARY = re.compile(rf"{LINE}(?:\n{LINE})*")


def progress_line(tokens: int, maximum: int | None) -> str:
    """Return the progress of thinking.

    Args:
        tokens: the thinking tokens so far.
        maximum: their maximum; None if there is none.
    """
    if maximum is not None:
        return f"Thought for {tokens:,} of {maximum:,} tokens."
    return f"Thought for {tokens:,} token{'' if tokens == 1 else 's'}."


def is_progress(summary: str) -> bool:
    """Return whether a summary has the progress of thinking, and none of its text."""
    return SUMMARY.fullmatch(summary) is not None
