"""What sessions have used, for the API and the command line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import add
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor.server.sessions.limits import Amounts, SessionState, SessionUsage, amounts_of
from proctor.server.sessions.store import SessionStore
from proctor.server.storage.tables import session_usage


@dataclass(frozen=True, slots=True)
class TierTotals:
    """What the ended requests of a session have used in one tier.

    Attributes:
        tier: the name of the tier, or "custom".
        requests: the number of requests.
        prompt_tokens: the number of tokens in their prompts.
        thinking_tokens: the number of thinking tokens, without markers.
        answer_tokens: the number of tokens in their answers.
        nanos: the cost, in billionths of the currency.
        thinking_nanos: the part of the cost for thinking.
        answer_nanos: the part of the cost for answers.
    """

    tier: str
    requests: int
    prompt_tokens: int
    thinking_tokens: int
    answer_tokens: int
    nanos: int
    thinking_nanos: int
    answer_nanos: int


@dataclass(frozen=True, slots=True)
class SessionReport:
    """A session and what it has used.

    Attributes:
        key: the name of its key; empty without keys.
        id: its ID.
        state: its limits, its usage and its reservations.
        last: when its last recorded request was received, or None.
        tiers: its usage by tier, as far as it is recorded in the ledger.
    """

    key: str
    id: str
    state: SessionState
    last: datetime | None
    tiers: tuple[TierTotals, ...]

    @property
    def used(self) -> SessionUsage:
        """What its ended requests have used."""
        return reduce(add, (part.used for part in self.state.tiers), SessionUsage())

    @property
    def reserved(self) -> SessionUsage:
        """The worst case of its running requests."""
        return reduce(add, (part.reserved for part in self.state.tiers), SessionUsage())

    @property
    def amounts(self) -> Amounts:
        """What is left of its limits, those of time excluded."""
        return amounts_of(self.state.limits, self.state.tiers)

    def seconds_left(self, now: datetime) -> float | None:
        """Return the time that is left, or None if it is not limited."""
        limit, created = self.state.limits.max_seconds, self.state.created
        if limit is None or created is None:
            return None
        return max(0.0, limit - (now - created).total_seconds())


class SessionReader:
    """Reads reports of sessions from the ledger's database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._store = SessionStore(engine)

    async def report(self, key: str, session_id: str) -> SessionReport | None:
        """Return the report of a session, or None if no request has named it.

        Args:
            key: the name of its key; empty without keys.
            session_id: its ID.
        """
        state = await self._store.state(key, session_id)
        if state.created is None:
            return None
        is_session = (session_usage.c.key == key) & (session_usage.c.session == session_id)
        query = select(session_usage).where(is_session).order_by(session_usage.c.tier)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        last = max((row.last for row in rows), default=None)
        return SessionReport(key, session_id, state, last, tuple(_totals(rows)))

    async def recent(self, count: int, key: str | None = None) -> list[SessionReport]:
        """Return the reports of the sessions that were used last, the most recent first.

        Args:
            count: the maximum number of sessions.
            key: the name of the key whose sessions to return, or None for all.
        """
        usage = session_usage.c
        query = select(usage.key, usage.session).group_by(usage.key, usage.session)
        if key is not None:
            query = query.where(usage.key == key)
        query = query.order_by(func.max(usage.last).desc()).limit(count)
        async with self._engine.connect() as connection:
            names = (await connection.execute(query)).all()
        reports = [await self.report(name.key, name.session) for name in names]
        return [report for report in reports if report is not None]


def _totals(rows: Sequence[Row[Any]]) -> Iterator[TierTotals]:
    for row in rows:
        yield TierTotals(
            row.tier,
            row.requests,
            row.prompt_tokens,
            row.thinking_tokens,
            row.answer_tokens,
            row.nanos,
            row.thinking_nanos,
            row.answer_nanos,
        )
