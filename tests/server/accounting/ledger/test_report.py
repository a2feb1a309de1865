"""Totals, percentiles and savings of a report."""

from datetime import timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from proctor.server.accounting.ledger.records import LedgerRecord
from proctor.server.accounting.ledger.report import GroupBy, Report, ReportLine, percentile
from tests.server.accounting.ledger.records import NOON, make_cost, make_record


def lines(rows: list[LedgerRecord], *by: GroupBy, against: str = "max") -> list[ReportLine]:
    report = Report(by, against)
    for each in rows:
        report.add(each)
    return report.lines()


def test_rows_are_summed_by_group() -> None:
    found = lines(
        [
            make_record(1, tier="low", cost=make_cost("0.1"), cached_tokens=4),
            make_record(2, tier="high", cost=make_cost("0.5"), thinking_tokens=90),
            make_record(3, tier="low", cost=make_cost("0.2"), status=499, answer_tokens=0),
            make_record(4, tier="low", time=NOON + timedelta(days=1), key="team"),
        ],
        GroupBy.DAY,
        GroupBy.TIER,
        GroupBy.KEY,
    )

    assert [line.group for line in found] == [
        ("2026-01-31", "high", ""),
        ("2026-01-31", "low", ""),
        ("2026-02-01", "low", "team"),
    ]
    high, low, unpriced = found
    assert (high.requests, high.thinking_share, high.cost) == (1, 0.9, Decimal("0.5"))
    assert (low.requests, low.answered) == (2, 1)
    assert (low.prompt_tokens, low.cached_tokens) == (20, 4)
    assert (low.thinking_tokens, low.answer_tokens) == (60, 10)
    # A cancelled request has a cost, but does not count as answered.
    assert (low.cost, low.cost_p50, low.cost_p95) == (
        Decimal("0.3"),
        Decimal("0.1"),
        Decimal("0.1"),
    )
    assert (unpriced.currency, unpriced.cost, unpriced.cost_p50) == (None, None, None)


def test_an_unknown_cost_is_not_zero() -> None:
    free, unknown = lines(
        [make_record(1, cost=make_cost("0"), tier="a"), make_record(2, tier="b")], GroupBy.TIER
    )

    assert (free.cost, free.cost_p95) == (Decimal(0), Decimal(0))
    assert (unknown.cost, unknown.cost_p95) == (None, None)


def test_two_currencies_are_not_added() -> None:
    rows = [
        make_record(1, cost=make_cost("1", "EUR")),
        make_record(2, cost=make_cost("2", "USD")),
        make_record(3, model="other"),
    ]

    found = [(line.group, line.currency, line.cost) for line in lines(rows, GroupBy.MODEL)]

    assert found == [
        (("fake",), "EUR", Decimal(1)),
        (("fake",), "USD", Decimal(2)),
        (("other",), None, None),
    ]


def test_savings_are_against_the_mean_choice_of_the_reference_tier() -> None:
    rows = [
        make_record(1, tier="max", thinking_tokens=100),
        make_record(2, tier="max", thinking_tokens=500, choices=2),
        make_record(3, tier="max", thinking_tokens=9, status=499),  # its full length is unknown
        make_record(4, tier="low", thinking_tokens=30),
        make_record(5, tier="low", thinking_tokens=80, choices=3),
    ]

    low, most = lines(rows, GroupBy.TIER)
    (unknown,) = lines(rows[3:], GroupBy.MODEL)

    assert low.saved_tokens == 4 * 200 - 110
    assert most.saved_tokens == 0
    assert unknown.saved_tokens is None


def test_the_cost_per_correct_answer_includes_all_graded_ones() -> None:
    (line,) = lines(
        [
            make_record(1, cost=make_cost("0.3"), score=1.0),
            make_record(2, cost=make_cost("0.4"), score=0.0),
            make_record(3, cost=make_cost("0.2"), score=0.5),
            make_record(4, cost=make_cost("9")),
        ]
    )
    (wrong,) = lines([make_record(1, cost=make_cost("0.3"), score=0.0)])

    assert (line.graded, line.correct) == (3, 1.5)
    assert line.cost_per_correct == Decimal("0.6")
    assert wrong.cost_per_correct is None


@given(values=st.lists(st.integers(0, 1000), min_size=1), percent=st.integers(1, 100))
def test_percentiles_are_nearest_ranks(values: list[int], percent: int) -> None:
    ordered = sorted(map(Decimal, values))

    found = percentile(ordered, percent)

    assert found is not None
    assert found in ordered
    assert sum(value <= found for value in ordered) * 100 >= len(ordered) * percent
    assert sum(value < found for value in ordered) * 100 < len(ordered) * percent
