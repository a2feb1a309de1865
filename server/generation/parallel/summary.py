"""Describes a vote in words."""

from collections.abc import Sequence

from proctor.server.generation.base import AnswerVotes

MAX_ANSWER = 64
"""The maximum number of characters of an answer in a summary."""


def summarize(answers: Sequence[AnswerVotes], chains: int, stopped: int) -> str:
    """Return a summary of a vote, which takes the place of the thinking.

    Args:
        answers: the votes for each answer.
        chains: the number of chains.
        stopped: how many of them were stopped.
    """
    without = chains - stopped - sum(each.votes for each in answers)
    lines = [f"Votes of {chains} chains of thought:"]
    lines += [f"- {_shortened(each.answer)}: {each.votes}" for each in answers]
    lines += [f"- no answer: {without}"] if without else []
    lines += [f"- not needed: {stopped}"] if stopped else []
    return "\n".join(lines)


def _shortened(answer: str) -> str:
    return answer if len(answer) <= MAX_ANSWER else f"{answer[: MAX_ANSWER - 1]}…"
