"""A question with its derivation, and what all kinds are written with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any, Protocol, TypeVar

Number = int | Decimal
T = TypeVar("T", int, Decimal)

SLIPS = (-10, -2, -1, 1, 2, 10)
"""How far off a slip is."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a derivation.

    Attributes:
        text: the line.
        slip: the line with a mistake in it, which a trace may correct; empty if there is none.
    """

    text: str
    slip: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its derivation.

    Attributes:
        kind: its kind.
        steps: its difficulty, from 1.
        question: the question.
        lines: the derivation, without the line that gives the answer.
        answer: the answer.
        facts: what the question says, as data, from which a test computes the answer.
    """

    kind: str
    steps: int
    question: str
    lines: Sequence[Line]
    answer: str
    facts: Mapping[str, Any]


class Kind(Protocol):
    """Draws problems of one kind."""

    def __call__(self, rng: Random, steps: int) -> Problem:
        """Return a problem of this many steps."""


def calculate(rng: Random, left: T, sign: str, right: T, before: str = "") -> tuple[T, Line]:
    """Return the result of a calculation, and the line that shows it, after a text."""
    result = _apply(left, sign, right)
    off = rng.choice([each for each in SLIPS if result + each >= 0])
    left_hand = f"{before}{left} {sign} {right}"
    return result, Line(f"{left_hand} = {result}.", f"{left_hand} = {result + off}.")


def _apply(left: T, sign: str, right: T) -> T:
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    if sign == "*":
        return (
            (left * right).quantize(Decimal("0.01")) if isinstance(left, Decimal) else left * right
        )
    quotient, rest = divmod(left, right)
    if rest:
        raise ValueError(f"{left} is not divisible by {right}")
    return quotient


def listed(words: Sequence[object]) -> str:
    """Return words as a list in a sentence."""
    *before, last = map(str, words)
    return f"{', '.join(before)} and {last}" if before else last


def plural(count: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
