"""What keys have used and reserved: one transaction decides, whichever gateway asks."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from typing import Any

from sqlalchemy import (
    Row,
    Select,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    text,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor.server.accounting.ledger.records import DraftRecord
from proctor.server.auth.api_key import Key
from proctor.server.auth.rate_limits import WINDOW, KeyUsage, WorstCase, check
from proctor.server.storage.tables import holds, requests, spend


class ReservationStore:
    """What keys have used, and what is reserved for their running requests, in a database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def use(self, name: str, now: datetime) -> KeyUsage:
        """What requests with a key have taken until now."""
        async with self._engine.connect() as connection:
            return _use((await connection.execute(_used(name, now))).one())

    async def reserve(
        self, row_id: str, key: Key, want: WorstCase, now: datetime, gateway: str
    ) -> dict[str, str]:
        """Hold back what a request may take, until its row is written.

        Of several requests, whichever gateway they come by, each sees what the others
        hold. The row's transaction takes the hold away and books what was really spent
        (`Store.write`), so that a request is counted once at every moment.

        Args:
            row_id: the request's, which its row will have.
            key: whose it is.
            want: what the request may take.
            now: the time.
            gateway: the one that runs it; if it is lost, others settle what it held.

        Returns:
            Headers that tell what is left.

        Raises:
            RateLimited: if there is not enough left.
            QuotaExceeded: if there is not enough money left.
        """
        async with self._engine.begin() as connection:
            if self._engine.dialect.name == "postgresql":
                # SQLite lets one transaction write at a time, and this is one that will.
                one_at_a_time = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")
                await connection.execute(one_at_a_time, {"key": key.name})
            used = _use((await connection.execute(_used(key.name, now))).one())
            told = check(key.limits, used, want, now)
            row = {
                "id": row_id,
                "key": key.name,
                "gateway": gateway,
                "placed": now,
                "tokens": want.tokens,
                "nanos": want.nanos,
            }
            await connection.execute(insert(holds).values(row))
        return told

    async def settle(self, ended: Iterable[DraftRecord], now: datetime) -> None:
        """Hold back no more for requests that have ended than what they took.

        That much is held until their rows are written. It is counted as the rows will
        be: the tokens of a request that came more than a minute ago count no more.

        Args:
            ended: what is known of each, and what it took; one that has a row is passed over.
            now: the time.
        """
        recent = case((holds.c.placed > now - WINDOW, bindparam("taken_tokens")), else_=0)
        settling = (
            update(holds)
            .where(holds.c.id == bindparam("row_id"))
            .values(
                tokens=recent,
                nanos=bindparam("taken_nanos"),
                settled=true(),
                draft=bindparam("as_of_now"),
            )
        )
        settled = [
            {
                "row_id": each.row.id,
                "taken_tokens": each.held.tokens,
                "taken_nanos": each.held.nanos,
                "as_of_now": each.row.to_json(),
            }
            for each in sorted(ended, key=lambda each: each.row.id)
        ]
        async with self._engine.begin() as connection:
            await connection.execute(settling, settled)

    async def release(self, row_id: str) -> None:
        """Give back what was held for a request that will have no row."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(holds).where(holds.c.id == row_id))


def _used(name: str, now: datetime) -> Select[Any]:
    """What a key has had, in one statement, which sees the database at one moment.

    A request that ends meanwhile is a hold or a row in it, never both or neither.
    """
    since = now - WINDOW
    today = now.date()
    recent = (requests.c.key == name) & (requests.c.time > since)
    held = holds.c.key == name
    tokens = requests.c.prompt_tokens + requests.c.completion_tokens
    month = today.replace(day=1)
    in_month = (spend.c.key == name) & (spend.c.day >= month)
    parts = {
        "rows": select(func.count()).select_from(requests).where(recent),
        "row_tokens": select(func.sum(tokens)).where(recent),
        "row_oldest": select(func.min(requests.c.time)).where(recent),
        "fresh": select(func.count()).select_from(holds).where(held & (holds.c.placed > since)),
        "held_tokens": select(func.sum(holds.c.tokens)).where(held),
        "held_oldest": select(func.min(holds.c.placed)).where(held & (holds.c.placed > since)),
        # What a request costs is spent on the day on which it came.
        "held_today": select(func.sum(holds.c.nanos)).where(
            held & (holds.c.placed >= _midnight(today))
        ),
        "held_in_month": select(func.sum(holds.c.nanos)).where(
            held & (holds.c.placed >= _midnight(month))
        ),
        "runs_today": select(func.sum(holds.c.nanos)).where(
            held & (holds.c.placed >= _midnight(today)) & ~holds.c.settled
        ),
        "runs_in_month": select(func.sum(holds.c.nanos)).where(
            held & (holds.c.placed >= _midnight(month)) & ~holds.c.settled
        ),
        "day": select(func.sum(spend.c.nanos)).where(
            (spend.c.key == name) & (spend.c.day == today)
        ),
        "month": select(func.sum(spend.c.nanos)).where(in_month),
    }
    return select(*(part.scalar_subquery().label(label) for label, part in parts.items()))


def _use(row: Row[Any]) -> KeyUsage:
    found = row._mapping
    moments = [found[name] for name in ("row_oldest", "held_oldest") if found[name] is not None]
    return KeyUsage(
        requests=found["rows"] + found["fresh"],
        tokens=int(found["row_tokens"] or 0) + int(found["held_tokens"] or 0),
        oldest=min(moments, default=None),
        day=int(found["day"] or 0) + int(found["held_today"] or 0),
        month=int(found["month"] or 0) + int(found["held_in_month"] or 0),
        held_of_day=int(found["runs_today"] or 0),
        held_of_month=int(found["runs_in_month"] or 0),
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
