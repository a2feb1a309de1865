"""Sections of a report, and how its figures are written."""

import math
from dataclasses import dataclass

from proctor.evaluation.statistics.delta import Interval


@dataclass(frozen=True, slots=True)
class Table:
    """A table; its first column holds names.

    Attributes:
        columns: headings.
        rows: cells, as many as there are headings.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report.

    Attributes:
        title: its heading.
        table: figures, if it has some.
        sentences: what they say.
        snippet: lines for a settings file, if it has some.
        figure: the name of the picture beside it, if it has one.
    """

    title: str
    table: Table | None = None
    sentences: tuple[str, ...] = ()
    snippet: str = ""
    figure: str = ""


def percent(found: Interval) -> str:
    """A share and its interval."""
    return f"{found.value:.1%} ({100 * found.low:.1f}, {100 * found.high:.1f})"


def points(found: Interval) -> str:
    """A difference of shares and its interval, in percentage points."""
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f}, {100 * found.high:+.1f})"


def ratio(found: Interval) -> str:
    """A ratio and its interval."""
    return f"{found.value:.2f} ({found.low:.2f}, {found.high:.2f})"


def count(number: float) -> str:
    """A mean number of tokens."""
    return "∞" if math.isinf(number) else f"{number:,.0f}"


def money(amount: float | None) -> str:
    """An amount, or a dash where none is known."""
    if amount is None:
        return "-"
    return "∞" if math.isinf(amount) else f"{amount:.3g}"
