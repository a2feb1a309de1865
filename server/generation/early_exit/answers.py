"""Normalizes answers, so that equal ones compare equal."""

import re

from proctor.server.config.thinking.early_exit import AnswerKind

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
CHOICE = re.compile(r"(?<![A-Za-z])\(?([A-J])\)?(?![A-Za-z'])")


def normalized(text: str, kind: AnswerKind) -> str | None:
    """Return the canonical form of an answer, or None if there is none.

    Args:
        text: the answer, which may have been cut.
        kind: what to look for: the last number, without separators of thousands; the last
            capital letter from A to J that stands alone; or the whole text, whose case and spaces
            do not count.
    """
    if kind is AnswerKind.NUMBER:
        numbers = NUMBER.findall(text)
        return _canonical_number(numbers[-1]) if numbers else None
    if kind is AnswerKind.CHOICE:
        letters = CHOICE.findall(text)
        return letters[-1] if letters else None
    return " ".join(text.casefold().split()).rstrip(".") or None


def _canonical_number(number: str) -> str:
    number = number.replace(",", "")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
    whole, _, fraction = digits.partition(".")
    canonical = (whole.lstrip("0") or "0") + (f".{fraction}" if fraction else "")
    return canonical if canonical == "0" else sign + canonical
