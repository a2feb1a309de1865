"""Keys in the ledger's database, and what is held back for the requests that run with them."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor.server.accounting.ledger.records import Draft
from proctor.server.accounting.ledger.service import open_database
from proctor.server.accounting.ledger.store import reason
from proctor.server.auth.api_key import Key
from proctor.server.auth.rate_limits import WINDOW, Use, Want, check
from proctor.server.config.sections import KeyLimits, LedgerSettings, Scope
from proctor.server.storage.tables import holds, keys, requests, spend

logger = logging.getLogger(__name__)


class KeyExists(ValueError):
    """There is a key of that name already."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A key in the database.

    Attributes:
        key: itself.
        created: when it was made.
        revoked: since when it opens nothing, or None.
    """

    key: Key
    created: datetime
    revoked: datetime | None


class KeyStore:
    """Keys and holds in a database whose tables are there."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def find(self, hashed: str) -> Kept | None:
        """The key whose token has this hash, a revoked one too."""
        async with self._engine.connect() as connection:
            found = (await connection.execute(select(keys).where(keys.c.hash == hashed))).first()
        return None if found is None else _kept(found)

    async def all(self) -> Sequence[Kept]:
        """Every key, the oldest first."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(select(keys).order_by(keys.c.created))
            return [_kept(row) for row in rows]

    async def add(self, key: Key) -> None:
        """Keep a key.

        Raises:
            KeyExists: if one has its name, a revoked one too: what the ledger says
                of a name is to be of one key.
        """
        row = {
            "id": key.id,
            "name": key.name,
            "scope": key.scope.value,
            "hash": key.hash,
            "limits": key.limits.model_dump_json(),
            "created": datetime.now(UTC),
        }
        try:
            async with self._engine.begin() as connection:
                await connection.execute(insert(keys).values(row))
        except IntegrityError:
            raise KeyExists(f"there is a key '{key.name}' already") from None

    async def revoke(self, name: str) -> bool:
        """Let a key open nothing any more; whether there is one that did."""
        open_one = (keys.c.name == name) & keys.c.revoked.is_(None)
        closing = update(keys).where(open_one).values(revoked=datetime.now(UTC))
        async with self._engine.begin() as connection:
            return (await connection.execute(closing)).rowcount > 0

    async def use(self, name: str, now: datetime) -> Use:
        """What requests with a key have taken until now."""
        async with self._engine.connect() as connection:
            return _use((await connection.execute(_used(name, now))).one())

    async def hold(
        self, row_id: str, key: Key, want: Want, now: datetime, gateway: str
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

    async def settle(self, ended: Iterable[Draft], now: datetime) -> None:
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

    async def aclose(self) -> None:
        """Let go of the database."""
        await self._engine.dispose()


def open_keys(settings: LedgerSettings) -> KeyStore | None:
    """The keys in the ledger's database, if there is one.

    Raises:
        BadSettings: if there can be none.
    """
    url = settings.url.get_secret_value()
    return KeyStore(open_database(url)) if url else None


async def has_keys(settings: LedgerSettings) -> bool:
    """Whether the database has keys that open anything; if it is away, it may have."""
    store = open_keys(settings)
    if store is None:
        return False
    try:
        return any(kept.revoked is None for kept in await store.all())
    except Exception as error:  # drivers have their own
        logger.warning("keys cannot be read now: %s", reason(error))
        return True
    finally:
        await store.aclose()


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


def _use(row: Row[Any]) -> Use:
    found = row._mapping
    moments = [found[name] for name in ("row_oldest", "held_oldest") if found[name] is not None]
    return Use(
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


def _kept(row: Row[Any]) -> Kept:
    limits = KeyLimits.model_validate_json(row.limits)
    key = Key(row.id, row.name, Scope(row.scope), row.hash, limits)
    return Kept(key, row.created, row.revoked)
