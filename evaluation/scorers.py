"""Whether an answer is right."""

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from importlib import import_module

Scorer = Callable[[str, str], float]
"""From an answer and what is right to a score between 0 and 1."""

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")
PLAIN = re.compile(rf"\$?(?:{NUMBER.pattern})\s*[%.]?")
"""A right answer that is a number and nothing else: 42, $1,200, 12.5%."""

CHOICE = re.compile(r"(?<![A-Za-z])([A-J])(?![A-Za-z])")


class BadScorer(ValueError):
    """There is no such scorer."""


def exact(answer: str, right: str) -> float:
    """The same text, but for spaces around it."""
    return float(answer.strip() == right.strip())


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


def choice(answer: str, right: str) -> float:
    """The last letter that stands by itself, A to J, is the right one."""
    found = CHOICE.findall(answer)
    return float(bool(found) and found[-1] == right.strip().upper())


def regex(answer: str, right: str) -> float:
    """The answer has a part that matches the pattern that is given as right."""
    return float(re.search(right, answer) is not None)


SCORERS: dict[str, Scorer] = {
    "exact": exact,
    "numeric": numeric,
    "choice": choice,
    "regex": regex,
}


def load_scorer(name: str) -> Scorer:
    """A scorer by its name, or a function of one's own as `module:function`.

    Raises:
        BadScorer: if there is none.
    """
    if name in SCORERS:
        return SCORERS[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise BadScorer(f"there is no scorer '{name}', only {', '.join(SCORERS)}")
    try:
        scorer: Scorer = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise BadScorer(f"scorer '{name}': {error}") from error
    return scorer


def _last_number(text: str) -> Decimal | None:
    found = NUMBER.findall(text)
    if not found:
        return None
    try:
        return Decimal(found[-1].replace(",", "")).normalize()
    except InvalidOperation:
        return None
