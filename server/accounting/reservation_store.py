"""The usage and reservations of API keys, in the database that all gateways share."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from typing import Any, NamedTuple

from sqlalchemy import (
    Row,
    Select,
    bindparam,
    delete,
    func,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor.server.accounting.ledger.records import DraftRecord
from proctor.server.auth.api_key import Key
from proctor.server.auth.rate_limits import WINDOW, KeyUsage, WorstCase, check
from proctor.server.sessions.limits import Session, SessionUsage
from proctor.server.sessions.store import SessionStore
from proctor.server.storage.database import lock
from proctor.server.storage.tables import holds, requests, spend


class SessionClaim(NamedTuple):
    """The session of a request that is to be reserved.

    Attributes:
        session: the session and its limits.
        tier: the tier of the request, or "custom".
    """

    session: Session
    tier: str


class ReservationStore:
    """The usage of API keys, and the reservations of running requests."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._sessions = SessionStore(engine)

    async def usage(self, key: str, now: datetime) -> KeyUsage:
        """Return the usage of a key until now, reservations included.

        Args:
            key: the name of the key.
            now: the time.
        """
        async with self._engine.connect() as connection:
            return _to_usage((await connection.execute(_usage_query(key, now))).one())

    async def reserve(
        self,
        record_id: str,
        key: Key | None,
        worst_case: WorstCase,
        now: datetime,
        gateway: str,
        claim: SessionClaim | None = None,
    ) -> dict[str, str]:
        """Reserve the worst case of a request, until its row is written.

        Concurrent requests see each other's reservations, whichever gateway they go
        through. The transaction that writes the row deletes the reservation and adds the
        actual spending (`Store.write`), so that a request is counted exactly once at any time.

        Args:
            record_id: the `id` of the request's record.
            key: the key of the request, or None.
            worst_case: the maximum that the request may use.
            now: when the request was received.
            gateway: the gateway that runs the request; if it is lost, another one settles
                its reservations.
            claim: the session of the request, if its limits apply.

        Returns:
            The rate-limit headers.

        Raises:
            RateLimited: if a rate limit would be exceeded, or a spending limit only because of
                the reservations of running requests.
            QuotaExceeded: if a spending limit would be exceeded by the spending itself.
            AllowanceChanged: if a limit of the session would be exceeded.
        """
        headers: dict[str, str] = {}
        async with self._engine.begin() as connection:
            if key is not None and key.limits.counted:
                await lock(connection, key.name)
                usage = _to_usage((await connection.execute(_usage_query(key.name, now))).one())
                headers = check(key.limits, usage, worst_case, now)
            row = {
                "id": record_id,
                "key": "" if key is None else key.name,
                "gateway": gateway,
                "placed": now,
                "tokens": worst_case.tokens,
                "nanos": worst_case.nanos,
                "thinking": worst_case.thinking,
            }
            if claim is not None:
                want = SessionUsage(1, worst_case.thinking, worst_case.tokens, worst_case.nanos)
                await self._sessions.claim(connection, claim.session, claim.tier, want, now)
                row |= {"session": claim.session.id, "tier": claim.tier}
            await connection.execute(insert(holds).values(row))
        return headers

    async def settle(self, drafts: Iterable[DraftRecord]) -> None:
        """Reduce the reservations of finished requests to their actual usage.

        The usage stays reserved until the rows are written, and counts in the same way as
        the rows will.

        Args:
            drafts: the drafts and actual usage of the requests; those that already have a
                row are skipped.
        """
        statement = (
            update(holds)
            .where(holds.c.id == bindparam("record_id"))
            .values(
                tokens=bindparam("used_tokens"),
                nanos=bindparam("used_nanos"),
                thinking=bindparam("used_thinking"),
                settled=true(),
                draft=bindparam("draft_json"),
            )
        )
        parameters = [
            {
                "record_id": draft.record.id,
                "used_tokens": draft.reserved.tokens,
                "used_nanos": draft.reserved.nanos,
                "used_thinking": draft.reserved.thinking,
                "draft_json": draft.record.to_json(),
            }
            for draft in sorted(drafts, key=lambda draft: draft.record.id)
        ]
        async with self._engine.begin() as connection:
            await connection.execute(statement, parameters)

    async def release(self, record_id: str) -> None:
        """Delete the reservation of a request that will have no row."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(holds).where(holds.c.id == record_id))


def _usage_query(key: str, now: datetime) -> Select[Any]:
    """Return the query of a key's usage.

    A single statement sees one snapshot of the database, in which a request that finishes
    meanwhile is either a reservation or a row.
    """
    window_start = now - WINDOW
    today = now.date()
    month = today.replace(day=1)
    recent_rows = (requests.c.key == key) & (requests.c.time > window_start)
    row_tokens = requests.c.prompt_tokens + requests.c.completion_tokens
    reserved = holds.c.key == key
    recently_reserved = reserved & (holds.c.placed > window_start)
    # Once a request has ended, its tokens count for a minute from when it was received.
    counting = reserved & ((holds.c.placed > window_start) | ~holds.c.settled)
    # The cost of a request counts on the day when the request was received.
    reserved_today = reserved & (holds.c.placed >= _midnight(today))
    reserved_this_month = reserved & (holds.c.placed >= _midnight(month))
    spent = spend.c.key == key
    columns = {
        "row_count": select(func.count()).select_from(requests).where(recent_rows),
        "row_tokens": select(func.sum(row_tokens)).where(recent_rows),
        "oldest_row": select(func.min(requests.c.time)).where(recent_rows),
        "reservation_count": select(func.count()).select_from(holds).where(recently_reserved),
        "reserved_tokens": select(func.sum(holds.c.tokens)).where(counting),
        "oldest_reservation": select(func.min(holds.c.placed)).where(recently_reserved),
        "reserved_today": select(func.sum(holds.c.nanos)).where(reserved_today),
        "reserved_this_month": select(func.sum(holds.c.nanos)).where(reserved_this_month),
        "running_today": select(func.sum(holds.c.nanos)).where(reserved_today & ~holds.c.settled),
        "running_this_month": select(func.sum(holds.c.nanos)).where(
            reserved_this_month & ~holds.c.settled
        ),
        "spent_today": select(func.sum(spend.c.nanos)).where(spent & (spend.c.day == today)),
        "spent_this_month": select(func.sum(spend.c.nanos)).where(spent & (spend.c.day >= month)),
    }
    return select(*(column.scalar_subquery().label(name) for name, column in columns.items()))


def _to_usage(row: Row[Any]) -> KeyUsage:
    times = (row.oldest_row, row.oldest_reservation)
    return KeyUsage(
        requests=row.row_count + row.reservation_count,
        tokens=int(row.row_tokens or 0) + int(row.reserved_tokens or 0),
        oldest=min(filter(None, times), default=None),
        day=int(row.spent_today or 0) + int(row.reserved_today or 0),
        month=int(row.spent_this_month or 0) + int(row.reserved_this_month or 0),
        held_of_day=int(row.running_today or 0),
        held_of_month=int(row.running_this_month or 0),
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
