"""Options of a condition: early exit, and several chains under one budget.

Both are written as words separated by colons, on the command line and in reports: the method first
(before it, for chains, their number), then any field of the request as `name=value`, such as
`answer:patience=2:answer=number` and `5:first_agreement`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from proctor.evaluation.options.escapes import escape, unescape

EXIT_METHODS = ("entropy", "answer", "confidence")
PARALLEL_METHODS = ("vote", "confidence", "first_agreement", "best_by_key")
ANSWERS = ("number", "choice", "text")
"""How the server compares answers."""


@dataclass(frozen=True, slots=True)
class EarlyExit:
    """The request field `thinking.early_exit`; what is None is not sent.

    Attributes:
        method: one of `EXIT_METHODS`.
        threshold: from which value of the method's measure on the thinking is settled.
        every: the thinking tokens between two checks.
        patience: the number of checks in a row that must agree.
        answer: one of `ANSWERS`.
        floor: below which value of the measure `confidence` the thinking is lost.
        opening: the text with which answers begin.
    """

    method: str
    threshold: float | None = None
    every: int | None = None
    patience: int | None = None
    answer: str | None = None
    floor: float | None = None
    opening: str | None = None

    @property
    def name(self) -> str:
        """The option as it is written on the command line."""
        return ":".join([self.method, *_assignments(self.to_json(), ("method",))])

    def to_json(self) -> dict[str, Any]:
        """Return the value of the request field, which is also how the option is stored."""
        return _given(self)

    @classmethod
    def parse(cls, text: str) -> "EarlyExit":
        """Parse the option as it is written on the command line.

        Raises:
            ValueError: if it is invalid; the message says what is allowed.
        """
        method, *assignments = text.split(":")
        converters: dict[str, Callable[[str], Any]] = {
            "threshold": _number,
            "every": _positive,
            "patience": _positive,
            "floor": _number,
            "opening": unescape,
        }
        values = _parse_assignments(assignments, {**converters, "answer": _one_of(ANSWERS)})
        return cls(_one_of(EXIT_METHODS)(method), **values)


@dataclass(frozen=True, slots=True)
class Parallel:
    """The request field `thinking.parallel`; what is None is not sent.

    Attributes:
        chains: the number of chains that share the budget.
        method: one of `PARALLEL_METHODS`.
        answer: one of `ANSWERS`.
        keep: which chains are kept, in the form that the server defines.
    """

    chains: int
    method: str
    answer: str | None = None
    keep: float | str | None = None

    @property
    def name(self) -> str:
        """The option as it is written on the command line."""
        assignments = _assignments(self.to_json(), ("chains", "method"))
        return ":".join([str(self.chains), self.method, *assignments])

    def to_json(self) -> dict[str, Any]:
        """Return the value of the request field, which is also how the option is stored."""
        return _given(self)

    @classmethod
    def parse(cls, text: str) -> "Parallel":
        """Parse the option as it is written on the command line.

        Raises:
            ValueError: if it is invalid; the message says what is allowed.
        """
        chains, _, rest = text.partition(":")
        method, *assignments = rest.split(":")
        values = _parse_assignments(assignments, {"answer": _one_of(ANSWERS), "keep": _scalar})
        return cls(_positive(chains), _one_of(PARALLEL_METHODS)(method), **values)


def _given(option: EarlyExit | Parallel) -> dict[str, Any]:
    values = {field.name: getattr(option, field.name) for field in fields(option)}
    return {name: value for name, value in values.items() if value is not None}


def _assignments(values: Mapping[str, Any], positional: Sequence[str]) -> list[str]:
    return [
        f"{name}={escape(value) if isinstance(value, str) else json.dumps(value)}"
        for name, value in values.items()
        if name not in positional
    ]


def _parse_assignments(
    assignments: Sequence[str], converters: Mapping[str, Callable[[str], Any]]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or name not in converters or name in values:
            allowed = ", ".join(f"{each}=…" for each in converters)
            raise ValueError(f"'{assignment}' is not one of {allowed}, each at most once")
        values[name] = converters[name](value)
    return values


def _one_of(allowed: Sequence[str]) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"'{text}' is not one of {', '.join(allowed)}")
        return text

    return convert


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"'{text}' is not a positive integer")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a number") from None


def _scalar(text: str) -> float | str:
    """Return a number where the text is one: the server defines the type."""
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number
