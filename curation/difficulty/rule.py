"""The rule: which questions are kept, and which answers must be known to tell.

A model *solves* a question under a condition if the mean score of its answers is above a half, as
in the reports of `proctor eval`. A question shows its reasoning delta in a model that solves it
with thinking and not without.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

SOLVED = "solved without thinking"
UNSOLVED = "not solved with thinking"
NOT_MEASURED = "not measured"


class Mode(StrEnum):
    """Whether a question is asked without or with thinking."""

    WITHOUT = "without thinking"
    THINKING = "with thinking"


@dataclass(frozen=True, slots=True)
class Judge:
    """A model by whose answers questions are judged.

    Attributes:
        name: its name in the recipe.
        only_without: whether it is only asked without thinking: it tells what is too easy, and
            shows no delta.
    """

    name: str
    only_without: bool = False


Solved = Mapping[tuple[str, Mode], bool]
"""Whether each model solves a question; a model and mode without all of its answers is absent."""


def verdict(judges: Sequence[Judge], solved: Solved) -> str | None:
    """Return why a question is dropped, or None if it is kept.

    - What any model solves without thinking is dropped.
    - Of the models that think, at least one must solve it with thinking. If none is to think,
      all that no model solves is kept, which is s1's rule.

    Args:
        judges: the recipe's models.
        solved: what is known of the question.
    """
    without = _without(judges, solved)
    if any(without):
        return SOLVED
    if None in without:
        return NOT_MEASURED
    thinking = [
        solved.get((judge.name, Mode.THINKING)) for judge in judges if not judge.only_without
    ]
    if any(thinking) or not thinking:
        return None
    return NOT_MEASURED if None in thinking else UNSOLVED


def may_be_needed(judge: Judge, mode: Mode, judges: Sequence[Judge], solved: Solved) -> bool:
    """Return whether a model's answers may decide, given what is known of the question.

    Thinking costs most, so it is asked for only where no model solves the question without.
    """
    if mode == Mode.WITHOUT:
        return True
    return not judge.only_without and not any(_without(judges, solved))


def is_needed(judge: Judge, mode: Mode, judges: Sequence[Judge], solved: Solved) -> bool:
    """Return whether a model's answers decide: none is that other models' may make useless."""
    if mode == Mode.WITHOUT:
        return True
    return may_be_needed(judge, mode, judges, solved) and None not in _without(judges, solved)


def _without(judges: Sequence[Judge], solved: Solved) -> list[bool | None]:
    return [solved.get((judge.name, Mode.WITHOUT)) for judge in judges]
