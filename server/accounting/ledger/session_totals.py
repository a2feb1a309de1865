"""The running totals of sessions, which the transaction that writes a row updates."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import case
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

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


class SessionEntry(NamedTuple):
    """The usage of one request in a session.

    Attributes:
        group: its key, session and tier.
        counts: the values of `COUNTS`, by name.
        time: when it was received.
    """

    group: Group
    counts: Mapping[str, int]
    time: datetime


class SessionTotals:
    """Adds the usage of requests to the totals of their sessions."""

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
        new: Iterable[SessionEntry],
        replaced: Iterable[SessionEntry],
    ) -> None:
        """Add entries in the caller's transaction, and subtract those that they replace."""
        totals: dict[Group, Counter[str]] = {}
        times: dict[Group, list[datetime]] = {}
        for group, counts, time in new:
            totals.setdefault(group, Counter()).update(counts)
            times.setdefault(group, []).append(time)
        for group, counts, time in replaced:
            totals.setdefault(group, Counter()).subtract(counts)
            times.setdefault(group, []).append(time)
        rows = [_row(group, totals[group], times[group]) for group in sorted(totals)]
        if rows:  # sorted, so that the transactions of two gateways cannot deadlock
            await connection.execute(self._add, rows)


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
