"""The running totals of sessions, which the transaction that writes a row updates."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import case
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from proctor.server.accounting.ledger.records import LedgerRecord
from proctor.server.pricing import to_nanos
from proctor.server.storage.tables import session_usage

COUNTS = (
    "requests",
    "prompt_tokens",
    "thinking_tokens",
    "answer_tokens",
    "completion_tokens",
    "nanos",
    "thinking_nanos",
    "answer_nanos",
)

Group = tuple[str, str, str]
"""The key, the session and the tier."""


class SessionTotals:
    """Adds the usage of records to the totals of their sessions."""

    def __init__(self, kind: str) -> None:
        """Initialize the statement.

        Args:
            kind: the kind of the database, "sqlite" or "postgresql".
        """
        insert = (sqlite.insert if kind == "sqlite" else postgresql.insert)(session_usage)
        old, new = session_usage.c, insert.excluded
        added = {name: old[name] + new[name] for name in COUNTS}
        self._add = insert.on_conflict_do_update(
            index_elements=["key", "session", "tier"],
            set_={
                **added,
                "first": case((new.first < old.first, new.first), else_=old.first),
                "last": case((new.last > old.last, new.last), else_=old.last),
            },
        )

    async def add(
        self,
        connection: AsyncConnection,
        new: Iterable[LedgerRecord],
        replaced: Iterable[LedgerRecord],
    ) -> None:
        """Add records in the caller's transaction, and subtract those that they replace."""
        totals: dict[Group, Counter[str]] = {}
        times: dict[Group, list[datetime]] = {}
        for record, group in _grouped(new):
            totals.setdefault(group, Counter()).update(_counts(record))
            times.setdefault(group, []).append(record.time)
        for record, group in _grouped(replaced):
            totals.setdefault(group, Counter()).subtract(_counts(record))
            times.setdefault(group, []).append(record.time)
        rows = [_row(group, totals[group], times[group]) for group in sorted(totals)]
        if rows:  # sorted, so that the transactions of two gateways cannot deadlock
            await connection.execute(self._add, rows)


def _grouped(records: Iterable[LedgerRecord]) -> Iterable[tuple[LedgerRecord, Group]]:
    for record in records:
        if record.session is not None:
            yield record, (record.key or "", record.session, record.tier)


def _counts(record: LedgerRecord) -> dict[str, int]:
    cost = record.cost
    return {
        "requests": 1,
        "prompt_tokens": record.prompt_tokens,
        "thinking_tokens": record.thinking_tokens,
        "answer_tokens": record.answer_tokens,
        "completion_tokens": record.completion_tokens,
        "nanos": 0 if cost is None else to_nanos(cost.total),
        "thinking_nanos": 0 if cost is None else to_nanos(cost.thinking),
        "answer_nanos": 0 if cost is None else to_nanos(cost.answer),
    }


def _row(group: Group, counts: Counter[str], times: Sequence[datetime]) -> dict[str, object]:
    key, session, tier = group
    return {
        "key": key,
        "session": session,
        "tier": tier,
        **{name: counts[name] for name in COUNTS},
        "first": min(times),
        "last": max(times),
    }
