"""The parts of a report, and the formats of its figures."""

import math
from dataclasses import dataclass

from proctor.evaluation.statistics.delta import MIN_QUESTIONS, Interval

UNKNOWN = "-"
"""What stands for a figure that the server does not report: never 0."""


TOO_FEW = (
    f"Not enough data for a conclusion: it needs at least {MIN_QUESTIONS} questions with answers "
    "under each of these conditions."
)


@dataclass(frozen=True, slots=True)
class Table:
    """A table; its first column holds row headers.

    Attributes:
        columns: the column headers.
        rows: the cells of each row, one per column.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a report.

    Attributes:
        title: the heading.
        table: the table, if any.
        sentences: the text.
        snippet: lines for a settings file; empty if none.
        figure: the name of the section's plot; empty if none.
    """

    title: str
    table: Table | None = None
    sentences: tuple[str, ...] = ()
    snippet: str = ""
    figure: str = ""


def percent(share: Interval) -> str:
    """Format a share and its interval in percent."""
    return f"{share.value:.1%}" + _bounds(f"{100 * share.low:.1f}", f"{100 * share.high:.1f}")


def points(difference: Interval) -> str:
    """Format a difference of shares and its interval in percentage points."""
    low, high = 100 * difference.low, 100 * difference.high
    return f"{100 * difference.value:+.1f}" + _bounds(f"{low:+.1f}", f"{high:+.1f}")


def decimal(estimate: Interval) -> str:
    """Format a number of any size and its interval, with three significant digits."""
    return f"{estimate.value:.3g}" + _bounds(f"{estimate.low:.3g}", f"{estimate.high:.3g}")


def p_value(probability: float) -> str:
    """Format a p-value."""
    return "<0.001" if probability < 0.001 else f"{probability:.3f}"


def ratio(estimate: Interval) -> str:
    """Format a ratio and its interval, or a dash if it is undefined."""
    if not math.isfinite(estimate.value):
        return UNKNOWN
    return f"{estimate.value:.2f}" + _bounds(f"{estimate.low:.2f}", f"{estimate.high:.2f}")


def _bounds(low: str, high: str) -> str:
    """Return the formatted bounds of an interval, or nothing without an interval."""
    return "" if "nan" in low + high else f" ({low}, {high})"


def count(number: float) -> str:
    """Format a mean number of tokens, or a dash if it is unknown."""
    if math.isnan(number):
        return UNKNOWN
    return "∞" if math.isinf(number) else f"{number:,.0f}"


def share(value: float | None) -> str:
    """Format a share in percent, or a dash if it is unknown."""
    return UNKNOWN if value is None else f"{value:.1%}"


def mean(value: float | None, digits: int) -> str:
    """Format a mean per answer, or a dash if it is unknown."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def money(amount: float | None) -> str:
    """Format an amount, or a dash if it is unknown."""
    if amount is None:
        return UNKNOWN
    return "∞" if math.isinf(amount) else f"{amount:.3g}"
