"""Scorers: functions that score answers, and normalize them for votes."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from importlib.metadata import EntryPoint, entry_points

from proctor.evaluation.tasks import Question

GROUP = "proctor.scorers"

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")
PLAIN_NUMBER = re.compile(rf"\$?(?:{NUMBER.pattern})\s*[%.]?")
"""A right answer that is only a number: 42, $1,200, 12.5%."""

LETTER = re.compile(r"(?<![A-Za-z])([A-J])(?![A-Za-z])")


class ScorerError(ValueError):
    """There is no such scorer, or it has failed."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores and normalizes answers.

    Attributes:
        score: takes an answer and the right answer, and returns a number from 0 to 1;
            raises ValueError if it cannot score by this right answer.
        normalize: returns an answer in a form in which equal answers are equal, or None
            without an answer. Votes count these forms.
    """

    score: Callable[[str, str], float]
    normalize: Callable[[str], str | None]

    def check(self, questions: list[Question]) -> None:
        """Check that answers to every question can be scored.

        Raises:
            ValueError: if not.
        """
        for question in questions:
            self.score("", question.answer)


def whole_text(answer: str) -> str | None:
    """Return the text without surrounding whitespace, or None if it is empty."""
    return answer.strip() or None


def exact(answer: str, right: str) -> float:
    """Return 1 if both texts are equal, ignoring surrounding whitespace."""
    return float(answer.strip() == right.strip())


def last_number(answer: str) -> str | None:
    """Return the last number, normalized."""
    number = _last_decimal(answer)
    return None if number is None else f"{number:f}"


def numeric(answer: str, right: str) -> float:
    """Return 1 if the last number of the answer equals the right one, in any notation.

    Raises:
        ValueError: if the right answer is more than a number: with the last number of a fraction
            or of a root, wrong answers would be right.
    """
    if not PLAIN_NUMBER.fullmatch(right.strip()):
        raise ValueError(f"scorer 'numeric': the right answer {right!r} is not a plain number")
    number = _last_decimal(answer)
    return float(number is not None and number == _last_decimal(right))


def last_letter(answer: str) -> str | None:
    """Return the last letter, A to J, that stands alone."""
    letters = LETTER.findall(answer)
    return letters[-1] if letters else None


def choice(answer: str, right: str) -> float:
    """Return 1 if the last letter, A to J, that stands alone is the right one."""
    return float(last_letter(answer) == right.strip().upper())


def regex(answer: str, right: str) -> float:
    """Return 1 if the right answer, a regular expression, matches a part of the answer."""
    return float(re.search(right, answer) is not None)


EXACT = Scorer(exact, whole_text)
NUMERIC = Scorer(numeric, last_number)
CHOICE = Scorer(choice, last_letter)
REGEX = Scorer(regex, whole_text)


def scorer_names() -> list[str]:
    """Return the names of the installed scorers."""
    return sorted(entry_points(group=GROUP).names)


def load_scorer(name: str) -> Scorer:
    """Load an entry point of `proctor.scorers`, or `module:name`.

    It may be a `Scorer`, or only its function `score`.

    Raises:
        ScorerError: if there is none, or it cannot be imported.
    """
    points = {point.name: point for point in entry_points(group=GROUP)}
    if ":" not in name and name not in points:
        raise ScorerError(
            f"there is no scorer '{name}'; available: {', '.join(sorted(points))}, or module:name"
        )
    try:
        loaded = points.get(name, EntryPoint(name, name, GROUP)).load()
    except (ImportError, AttributeError) as error:
        hint = " (it requires the extra 'eval')" if name == "math" else ""
        raise ScorerError(f"scorer '{name}': {error}{hint}") from error
    return loaded if isinstance(loaded, Scorer) else Scorer(loaded, whole_text)


def _last_decimal(text: str) -> Decimal | None:
    numbers = NUMBER.findall(text)
    if not numbers:
        return None
    try:
        return Decimal(numbers[-1].replace(",", "")).normalize()
    except InvalidOperation:
        return None
