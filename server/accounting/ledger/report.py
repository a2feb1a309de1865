"""Reports: the rows of a ledger, summed by group."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from math import ceil
from operator import itemgetter

from proctor.server.accounting.ledger.records import LedgerRecord

OK = 200


class GroupBy(StrEnum):
    """The columns that rows can be grouped by."""

    DAY = "day"
    KEY = "key"
    TIER = "tier"
    MODEL = "model"
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class ReportLine:
    """The sums of the rows of one group.

    Attributes:
        group: the values of the columns that the rows are grouped by.
        requests: the number of rows.
        answered: the number of rows with status 200.
        prompt_tokens: the prompt tokens of all rows.
        cached_tokens: the prompt tokens that were read from the engine's cache.
        thinking_tokens: the thinking tokens of all rows, without markers.
        answer_tokens: the answer tokens of all rows.
        thinking_share: the share of thinking in thinking and answers together; None if
            both are zero.
        saved_tokens: the thinking tokens saved in answered requests, compared with the
            mean per choice of the baseline tier; None if that tier has no answered requests.
        currency: the currency of the costs; rows of different currencies are in different
            groups.
        cost: the cost of all rows; None if no row has a cost.
        cost_p50: the median cost of an answered request, or None.
        cost_p95: the 95th percentile of the cost of an answered request, or None.
        graded: the number of rows with a score.
        correct: the sum of the scores.
        cost_per_correct: the cost of the rows with a score per correct answer; None if
            nothing was correct, or one of the rows has no cost.
    """

    group: tuple[str, ...]
    requests: int
    answered: int
    prompt_tokens: int
    cached_tokens: int
    thinking_tokens: int
    answer_tokens: int
    thinking_share: float | None
    saved_tokens: int | None
    currency: str | None
    cost: Decimal | None
    cost_p50: Decimal | None
    cost_p95: Decimal | None
    graded: int
    correct: float
    cost_per_correct: Decimal | None


VALUE_COLUMNS = tuple(column.name for column in fields(ReportLine) if column.name != "group")
"""The columns of a report, apart from those that it is grouped by."""


@dataclass(slots=True)
class GroupSums:
    """The sums of one group, to which rows are added."""

    requests: int = 0
    answered: int = 0
    choices: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    thinking_tokens: int = 0
    answered_thinking: int = 0
    answer_tokens: int = 0
    costs: list[Decimal] = field(default_factory=list)
    total: Decimal | None = None
    graded: int = 0
    unpriced: int = 0
    correct: Fraction = Fraction()
    graded_cost: Decimal = Decimal()

    def add(self, row: LedgerRecord) -> None:
        """Add a row."""
        self.requests += 1
        self.prompt_tokens += row.prompt_tokens
        self.cached_tokens += row.cached_tokens or 0
        self.thinking_tokens += row.thinking_tokens
        self.answer_tokens += row.answer_tokens
        if row.status == OK:
            self.answered += 1
            self.choices += row.choices
            self.answered_thinking += row.thinking_tokens
        if row.cost is not None:
            self.total = (self.total or Decimal()) + row.cost.total
            if row.status == OK:
                self.costs.append(row.cost.total)
        if row.score is not None:
            self._add_score(row, row.score)

    def _add_score(self, row: LedgerRecord, score: float) -> None:
        self.graded += 1
        self.correct += Fraction(score)
        if row.cost is None:
            self.unpriced += 1
        else:
            self.graded_cost += row.cost.total

    @property
    def cost_per_correct(self) -> Decimal | None:
        """The cost of the rows with a score per correct answer, see `ReportLine`."""
        if not self.correct or self.unpriced:
            return None
        return self.graded_cost * self.correct.denominator / self.correct.numerator


class Report:
    """Sums rows by group, as they are added."""

    def __init__(self, by: Sequence[GroupBy], baseline_tier: str) -> None:
        """Initialize the report.

        Args:
            by: the columns to group the rows by.
            baseline_tier: the tier that `saved_tokens` compares with.
        """
        self._by = by
        self._baseline_tier = baseline_tier
        self._groups: dict[tuple[tuple[str, ...], str], GroupSums] = {}
        self._baseline = GroupSums()

    def add(self, row: LedgerRecord) -> None:
        """Add a row."""
        group = tuple(_value(row, column) for column in self._by)
        currency = "" if row.cost is None else row.cost.currency
        self._groups.setdefault((group, currency), GroupSums()).add(row)
        if row.tier == self._baseline_tier:
            self._baseline.add(row)

    def lines(self) -> list[ReportLine]:
        """Return the lines of all groups, sorted by group and currency."""
        baseline = self._baseline
        mean = Fraction(baseline.answered_thinking, baseline.choices) if baseline.choices else None
        return [
            _line(*key, sums, mean) for key, sums in sorted(self._groups.items(), key=itemgetter(0))
        ]


def _value(row: LedgerRecord, by: GroupBy) -> str:
    match by:
        case GroupBy.DAY:
            return row.time.date().isoformat()
        case GroupBy.KEY:
            return row.key or ""
        case GroupBy.TIER:
            return row.tier
        case GroupBy.MODEL:
            return row.model
        case GroupBy.SESSION:
            return row.session or ""


def _line(
    group: tuple[str, ...], currency: str, sums: GroupSums, baseline_mean: Fraction | None
) -> ReportLine:
    generated = sums.thinking_tokens + sums.answer_tokens
    costs = sorted(sums.costs)
    return ReportLine(
        group=group,
        requests=sums.requests,
        answered=sums.answered,
        prompt_tokens=sums.prompt_tokens,
        cached_tokens=sums.cached_tokens,
        thinking_tokens=sums.thinking_tokens,
        answer_tokens=sums.answer_tokens,
        thinking_share=sums.thinking_tokens / generated if generated else None,
        saved_tokens=(
            None
            if baseline_mean is None
            else round(baseline_mean * sums.choices - sums.answered_thinking)
        ),
        currency=currency or None,
        cost=sums.total,
        cost_p50=percentile(costs, 50),
        cost_p95=percentile(costs, 95),
        graded=sums.graded,
        correct=float(sums.correct),
        cost_per_correct=sums.cost_per_correct,
    )


def percentile(ordered: Sequence[Decimal], percent: int) -> Decimal | None:
    """Return a percentile of ordered values by the nearest-rank method, or None if there are none.

    This is the smallest value that at least `percent` percent of the values do not exceed.
    """
    if not ordered:
        return None
    return ordered[max(ceil(len(ordered) * percent / 100), 1) - 1]
