"""What the rows of a ledger come to. A pure function of the rows."""

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
    """What rows can be grouped by."""

    DAY = "day"
    KEY = "key"
    TIER = "tier"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class ReportLine:
    """The rows of one group.

    Attributes:
        group: the values that they were grouped by, in the order asked for.
        requests: how many rows.
        answered: how many of them were answered in full.
        prompt_tokens: of all rows, as all tokens here.
        cached_tokens: of the prompts', those that came from the engine's cache.
        thinking_tokens: markers excluded.
        answer_tokens: of the answers.
        thinking_share: of thinking and answers together; None where there was neither.
        saved_tokens: thinking tokens less than if each choice had thought as long
            as a mean one of the tier compared with; None without such rows.
        currency: of the costs; rows of different currencies are in different groups.
        cost: of all rows together; None where none has a price, as the next two.
        cost_p50: of an answered request, the median.
        cost_p95: likewise, the 95th percentile.
        graded: rows with an outcome.
        correct: the sum of their scores.
        cost_per_correct: what graded rows cost for each right answer; None
            where nothing was right, or one of them has no price.
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


NUMBERS = tuple(column.name for column in fields(ReportLine) if column.name != "group")
"""The columns of a report after those that it is grouped by."""


@dataclass(slots=True)
class Sums:
    """One group while its rows come in."""

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
        """Take in a row."""
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
            self._set_score(row, row.score)

    def _set_score(self, row: LedgerRecord, score: float) -> None:
        self.graded += 1
        self.correct += Fraction(score)
        if row.cost is None:
            self.unpriced += 1
        else:
            self.graded_cost += row.cost.total

    @property
    def cost_per_correct(self) -> Decimal | None:
        """What graded rows cost for each right answer, if that can be said."""
        if not self.correct or self.unpriced:
            return None
        return self.graded_cost * self.correct.denominator / self.correct.numerator


class Report:
    """Adds rows up by group, as they come."""

    def __init__(self, by: Sequence[GroupBy], against: str) -> None:
        """Begin without rows.

        Args:
            by: what to group them by.
            against: the tier that `saved_tokens` compares with.
        """
        self._by = by
        self._against = against
        self._groups: dict[tuple[tuple[str, ...], str], Sums] = {}
        self._most = Sums()

    def add(self, row: LedgerRecord) -> None:
        """Take in a row."""
        group = tuple(_value(row, each) for each in self._by)
        currency = "" if row.cost is None else row.cost.currency
        self._groups.setdefault((group, currency), Sums()).add(row)
        if row.tier == self._against:
            self._most.add(row)

    def lines(self) -> list[ReportLine]:
        """The groups, sorted."""
        most = self._most
        mean = Fraction(most.answered_thinking, most.choices) if most.choices else None
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


def _line(group: tuple[str, ...], currency: str, sums: Sums, most: Fraction | None) -> ReportLine:
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
            None if most is None else round(most * sums.choices - sums.answered_thinking)
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
    """The least of some ordered values that so many percent of them do not exceed."""
    if not ordered:
        return None
    return ordered[max(ceil(len(ordered) * percent / 100), 1) - 1]
