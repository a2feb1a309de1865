"""Whether an answer is right, and what it says."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from importlib.metadata import EntryPoint, entry_points

from proctor.evaluation.tasks import Question

GROUP = "proctor.scorers"

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")
PLAIN = re.compile(rf"\$?(?:{NUMBER.pattern})\s*[%.]?")
"""A right answer that is a number and nothing else: 42, $1,200, 12.5%."""

LETTER = re.compile(r"(?<![A-Za-z])([A-J])(?![A-Za-z])")


class BadScorer(ValueError):
    """There is no such scorer, or it cannot judge any more."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """Judges answers.

    Attributes:
        score: from an answer and what is right to a number between 0 and 1;
            raises ValueError where what is right is nothing that it can judge by.
        said: what an answer says, so that two which say the same are equal; None
            where it says nothing. Votes are counted on this.
    """

    score: Callable[[str, str], float]
    said: Callable[[str], str | None]

    def check(self, questions: list[Question]) -> None:
        """See that every question can be judged.

        Raises:
            ValueError: if one cannot.
        """
        for question in questions:
            self.score("", question.answer)


def whole_text(answer: str) -> str | None:
    """The text but for spaces around it; None if there is none."""
    return answer.strip() or None


def exact(answer: str, right: str) -> float:
    """The same text, but for spaces around it."""
    return float(answer.strip() == right.strip())


def number_said(answer: str) -> str | None:
    """The last number, however it is written."""
    found = _last_number(answer)
    return None if found is None else f"{found:f}"


def numeric(answer: str, right: str) -> float:
    """The last number of the answer is the right one, however it is written.

    Raises:
        ValueError: if the right answer is more than a number; the last number of a fraction or
            of a root, say, would make wrong answers right.
    """
    if not PLAIN.fullmatch(right.strip()):
        raise ValueError(f"scorer 'numeric': the right answer {right!r} is not a plain number")
    found, wanted = _last_number(answer), _last_number(right)
    return float(found is not None and found == wanted)


def letter_said(answer: str) -> str | None:
    """The last letter that stands by itself, A to J."""
    found = LETTER.findall(answer)
    return found[-1] if found else None


def choice(answer: str, right: str) -> float:
    """The last letter that stands by itself, A to J, is the right one."""
    return float(letter_said(answer) == right.strip().upper())


def regex(answer: str, right: str) -> float:
    """The answer has a part that matches the pattern that is given as right."""
    return float(re.search(right, answer) is not None)


EXACT = Scorer(exact, whole_text)
NUMERIC = Scorer(numeric, number_said)
CHOICE = Scorer(choice, letter_said)
REGEX = Scorer(regex, whole_text)


def scorer_names() -> list[str]:
    """The scorers that have a name."""
    return sorted(entry_points(group=GROUP).names)


def load_scorer(name: str) -> Scorer:
    """An entry point of `proctor.scorers`, or `module:name`: a `Scorer`, or its `score` alone.

    Raises:
        BadScorer: if there is none.
    """
    points = {point.name: point for point in entry_points(group=GROUP)}
    if ":" not in name and name not in points:
        raise BadScorer(f"there is no scorer '{name}', only {', '.join(sorted(points))}")
    try:
        found = points.get(name, EntryPoint(name, name, GROUP)).load()
    except (ImportError, AttributeError) as error:
        hint = " (it needs the extra 'eval')" if name == "math" else ""
        raise BadScorer(f"scorer '{name}': {error}{hint}") from error
    return found if isinstance(found, Scorer) else Scorer(found, whole_text)


def _last_number(text: str) -> Decimal | None:
    found = NUMBER.findall(text)
    if not found:
        return None
    try:
        return Decimal(found[-1].replace(",", "")).normalize()
    except InvalidOperation:
        return None
