"""Answers in LaTeX, boxed or not, as math-verify reads them: 1/2 is 0.5, and (1, 2) is a pair.

Its own module, as it needs the extra `eval`.
"""

from typing import Any

from math_verify import parse, verify

from evaluation.scorers import Scorer

BOX = r"\boxed"


def equal(answer: str, right: str) -> float:
    """The answer's last box, or else its last expression, equals the right one.

    Raises:
        ValueError: if the right one cannot be read.
    """
    wanted = _read_right(right)
    if not wanted:
        raise ValueError(f"scorer 'math': the right answer {right!r} cannot be read")
    return float(verify(wanted, _read(answer)))


def expression_said(answer: str) -> str | None:
    """The same, in SymPy's own writing."""
    found = _read(answer)
    return str(found[0]) if found else None


def _read(answer: str) -> list[Any]:
    """What stands from the last box on: an earlier one was a step, or was taken back."""
    found: list[Any] = parse(answer[max(answer.rfind(BOX), 0) :])
    return found


def _read_right(right: str) -> list[Any]:
    """What is right, as datasets give it: without a box or dollars around it, or with them."""
    found: list[Any] = parse(right if BOX in right else f"{BOX}{{{right}}}")
    return found


MATH = Scorer(equal, expression_said)
