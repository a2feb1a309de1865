"""The database behind the ledger."""

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Any

from alembic.command import upgrade
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, delete, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from server.ledger.rows import Row
from server.ledger.tables import (
    from_columns,
    holds,
    requests,
    spend,
    text_columns,
    texts,
    to_columns,
)
from server.prices import to_nanos

MIGRATIONS = "server.ledger:migrations"
LOCK = 0x70726F63746F72
"""Of those who would migrate one PostgreSQL at a time."""

NOT_NOW = frozenset({"53300", "57P03"})
"""PostgreSQL's codes for too many connections, and for a server that is just starting."""


class LedgerError(RuntimeError):
    """The ledger cannot be used as it is; the message says why."""


class RowsRefused(ValueError):
    """The database will never take these rows."""


class Store:
    """Rows in a database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        kind = engine.dialect.name
        insert = sqlite.insert if kind == "sqlite" else postgresql.insert
        # A batch is written again where nobody knows whether it was: its rows are there once.
        self._insert_requests = insert(requests).on_conflict_do_nothing()
        self._insert_texts = insert(texts).on_conflict_do_nothing()
        adding = insert(spend)
        more = {"nanos": spend.c.nanos + adding.excluded.nanos}
        self._add_spend = adding.on_conflict_do_update(index_elements=["key", "day"], set_=more)

    async def migrate(self) -> None:
        """Bring the tables to what this version needs; nothing is done where they are.

        Raises:
            LedgerError: if they are of a version that this one does not know.
            Exception: whatever keeps the database from doing so.
        """
        async with self._engine.begin() as connection:
            if self._engine.dialect.name == "postgresql":
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            await connection.run_sync(_upgrade)

    async def check(self) -> None:
        """Return if the tables are what this version reads.

        Raises:
            LedgerError: if they are not, or the database cannot be read.
        """
        try:
            async with self._engine.connect() as connection:
                found = await connection.run_sync(_revision)
        except Exception as error:  # drivers have their own
            raise LedgerError(f"the ledger cannot be read: {reason(error)}") from error
        if found != (newest := ScriptDirectory.from_config(_config()).get_current_head()):
            raise LedgerError(
                f"the ledger's tables are of version {found or 'none'}, and {newest} is needed: "
                "run 'proctor ledger migrate'"
            )

    async def write(self, rows: Sequence[Row]) -> None:
        """Add rows, all or none; those that are there already stay as they are.

        What was held back for them is given back, and what they cost is spent.

        Raises:
            RowsRefused: if one of them can never be written.
            Exception: whatever keeps the database from taking them now.
        """
        said = [text_columns(row, row.texts) for row in rows if row.texts is not None]
        try:
            async with self._engine.begin() as connection:
                await self._insert(connection, rows)
                if said:
                    await connection.execute(self._insert_texts, said)
        except (DataError, IntegrityError, UnicodeError) as error:
            raise RowsRefused(reason(error)) from error

    async def _insert(self, connection: AsyncConnection, rows: Sequence[Row]) -> None:
        columns = [to_columns(row) for row in rows]
        keyed = {row.id: row for row in rows if row.key is not None}
        if not keyed:
            await connection.execute(self._insert_requests, columns)
            return
        told = self._insert_requests.returning(requests.c.id)
        inserted = (await connection.scalars(told, columns)).all()
        await connection.execute(delete(holds).where(holds.c.id.in_([*keyed])))
        if spent := _spent(keyed[name] for name in inserted if name in keyed):
            await connection.execute(self._add_spend, spent)

    async def grade(self, request_id: str, score: float, of: str | None = None) -> int:
        """Attach an outcome to a request.

        Args:
            request_id: a row's `id`, or its `request_id` if no other row has it.
            score: how right the answer was, from 0 to 1.
            of: the name of the key whose requests are meant; None is anybody's.

        Returns:
            How many rows have that id; the outcome is attached if it is one.
        """
        named = or_(requests.c.id == request_id, requests.c.request_id == request_id)
        if of is not None:
            named &= requests.c.key == of
        async with self._engine.begin() as connection:
            found = (await connection.scalars(select(requests.c.id).where(named).limit(2))).all()
            if len(found) == 1:
                graded = update(requests).where(requests.c.id == found[0]).values(score=score)
                await connection.execute(graded)
        return len(found)

    async def rows(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncGenerator[Row, None]:
        """The rows of a span of time, in order; without what was said.

        Args:
            since: the earliest that is wanted.
            until: the earliest after it that is not.
        """
        wanted = select(requests).order_by(requests.c.time)
        if since is not None:
            wanted = wanted.where(requests.c.time >= since)
        if until is not None:
            wanted = wanted.where(requests.c.time < until)
        async with self._engine.connect() as connection:
            async for columns in await connection.stream(wanted):
                yield from_columns(dict(columns._mapping))

    async def aclose(self) -> None:
        """Let go of the database."""
        await self._engine.dispose()


def _spent(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """What rows add to the days of their keys.

    Sorted, so that two gateways that write at a time cannot wait for each other.
    """
    found: Counter[tuple[str, date]] = Counter()
    for row in rows:
        if row.key is not None and row.cost is not None:
            found[row.key, row.time.astimezone(UTC).date()] += to_nanos(row.cost.total)
    return [{"key": key, "day": day, "nanos": found[key, day]} for key, day in sorted(found)]


def is_away(error: BaseException) -> bool:
    """Whether a database could not be reached, and may be there later."""
    away = isinstance(error, OSError | TimeoutError)
    return away or getattr(error, "sqlstate", None) in NOT_NOW


def reason(error: BaseException) -> str:
    """What went wrong, in one line, without the statement that was tried."""
    said = getattr(error, "orig", None) or error
    return (str(said) or type(said).__name__).split("\n", 1)[0]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection) -> None:
    config = _config()
    if _revision(connection) == ScriptDirectory.from_config(config).get_current_head():
        return
    config.attributes["connection"] = connection
    try:
        upgrade(config, "head")
    except CommandError as error:
        raise LedgerError(
            f"the ledger's tables are of a version that this one does not know: {error}"
        ) from error
