"""Finds the final answer in a text, and compares two of them."""

import re
from decimal import Decimal, InvalidOperation
from functools import cache

from proctor.evaluation.scorers import NUMBER, Scorer, ScorerError

CLAIM = re.compile(
    r"(?:answer|result|solution)\s*(?:is|:|=|would be|must be)\s*:?\s*"
    r"(?P<value>[^\n]+?)(?=[.!?](?:\s|$)|\n|$)",
    re.IGNORECASE,
)
AFTER_HASHES = re.compile(r"####\s*(?P<value>[^\n]+)")
LATEX = re.compile(r"[\\^{}]")
"""Matches what only formulas have."""

DECORATION = re.compile(r"[*_`$\"'\u2018\u2019\u201c\u201d.,;:!?()\[\]{}\s]+")
MAX_PHRASE_WORDS = 6
"""Words of the longest answer that is compared as a whole; longer ones are explanations."""


def final_answer(text: str) -> str | None:
    """Return the final answer of a text, or None if it does not state one.

    It is what stands in the last box, after `####` as in GSM8K, or after the last "answer is";
    otherwise a short text is its own answer.
    """
    if boxed := last_boxed(text):
        return boxed
    for pattern in (AFTER_HASHES, CLAIM):
        if found := list(pattern.finditer(text)):
            return found[-1]["value"].strip(" *_$.")
    stripped = text.strip()
    return stripped if stripped and len(stripped.split()) <= MAX_PHRASE_WORDS else None


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last complete `\boxed{…}`, or None."""
    for opening in reversed(list(re.finditer(r"\\f?boxed\s*\{", text))):
        depth = 1
        for position in range(opening.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return text[opening.end() : position].strip()
    return None


def numbers(text: str) -> list[Decimal]:
    """Return all numbers of a text, in order."""
    found = (number.replace(",", "") for number in NUMBER.findall(text))
    return [value for number in found if (value := _decimal(number)) is not None]


def same_answer(answer: str, reference: str) -> bool | None:
    """Return whether the final answers of two texts are the same; None if that cannot be told.

    Numbers are compared by value, LaTeX by math-verify where the extra `eval` is installed, and
    short phrases by their words.
    """
    right = final_answer(reference)
    if right is None:
        return None
    given = final_answer(answer)
    if given is not None and normal(given) == normal(right):
        return True
    if LATEX.search((given or "") + right):
        return _same_latex(given or answer, right)
    if expected := numbers(right):
        return _same_numbers(numbers(given or answer), expected)
    if contains_words(given or answer, right):
        return True
    return None if given is None else False


def contains_words(text: str, phrase: str) -> bool:
    """Return whether a text has the words of a phrase, one after the other."""
    return f" {normal(phrase)} " in f" {normal(text)} "


def states(text: str, answer: str) -> bool:
    """Return whether a text has the words of a final answer, or its last number."""
    return contains_words(text, answer) or bool({*numbers(answer)[-1:]} & {*numbers(text)})


def normal(text: str) -> str:
    """Return a text in lower case with its words only, separated by single spaces."""
    return DECORATION.sub(" ", text.casefold()).strip()


def _same_numbers(given: list[Decimal], expected: list[Decimal]) -> bool | None:
    """Return whether the given numbers end in the expected ones.

    Of two lists of different lengths, such as 3/4 and 0.75, that cannot be told.
    """
    if len(expected) == 1 or len(given) == len(expected):
        return given[-len(expected) :] == expected
    return None


def _decimal(number: str) -> Decimal | None:
    try:
        return Decimal(number).normalize()
    except InvalidOperation:
        return None


@cache
def _math() -> Scorer | None:
    try:
        from proctor.evaluation.math_scorer import MATH
    except ImportError:
        return None
    return MATH


def _same_latex(given: str, right: str) -> bool | None:
    """Return whether two formulas are equal; None if they cannot be read."""
    scorer = _math()
    if scorer is None:
        return None
    try:
        return bool(scorer.score(rf"\boxed{{{given}}}", right))
    except (ValueError, ScorerError):
        return None
