"""The database behind the ledger."""

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import UTC, date, datetime

from sqlalchemy import bindparam, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proctor.server.accounting.ledger.records import (
    LedgerRecord,
    from_columns,
    text_columns,
    to_columns,
)
from proctor.server.pricing import to_nanos
from proctor.server.storage.errors import RowsRefused, is_refusal, reason
from proctor.server.storage.migrate import migrate
from proctor.server.storage.tables import holds, requests, spend, texts


class Store:
    """Rows in a database.

    Attributes:
        engine: connects to it.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        kind = engine.dialect.name
        insert = sqlite.insert if kind == "sqlite" else postgresql.insert
        # A batch is written again where nobody knows whether it was: its rows are there once.
        adding = insert(requests).on_conflict_do_nothing()
        self._insert_requests = adding.returning(requests.c.id)
        self._insert_texts = insert(texts).on_conflict_do_nothing()
        spending = insert(spend)
        more = {"nanos": spend.c.nanos + spending.excluded.nanos}
        self._add_spend = spending.on_conflict_do_update(index_elements=["key", "day"], set_=more)

    async def migrate(self) -> None:
        """Bring the tables to the newest version; see `storage.migrate`."""
        await migrate(self.engine)

    async def write(self, rows: Sequence[LedgerRecord]) -> None:
        """Add rows, all or none; those that are there already stay as they are.

        What was held back for them is given back, and what they cost is spent. A row that
        was estimated when this gateway was thought lost is replaced.

        Raises:
            RowsRefused: if one of them can never be written.
            Exception: whatever keeps the database from taking them now.
        """
        said = [text_columns(row, row.texts) for row in rows if row.texts is not None]
        try:
            async with self.engine.begin() as connection:
                await self.enter(connection, rows)
                if said:
                    await connection.execute(self._insert_texts, said)
        except Exception as error:
            if is_refusal(error):
                raise RowsRefused(reason(error)) from error
            raise

    async def enter(self, connection: AsyncConnection, rows: Sequence[LedgerRecord]) -> None:
        """Do what `write` does, in a transaction that runs."""
        by_id = {row.id: row for row in rows}
        columns = [to_columns(row) for row in rows]
        inserted = {*await connection.scalars(self._insert_requests, columns)}
        spent = _spent(row for name, row in by_id.items() if name in inserted)
        known = [row for name, row in by_id.items() if name not in inserted and not row.estimated]
        if known:
            spent.update(await self._replace(connection, known))
        await connection.execute(delete(holds).where(holds.c.id.in_([*by_id])))
        if spent:
            # Sorted, so that two gateways that write at a time cannot wait for each other.
            adding = [
                {"key": key, "day": day, "nanos": nanos}
                for (key, day), nanos in sorted(spent.items())
            ]
            await connection.execute(self._add_spend, adding)

    async def _replace(
        self, connection: AsyncConnection, rows: Sequence[LedgerRecord]
    ) -> Counter[tuple[str, date]]:
        """Replace those of these rows that were estimated; what that adds to the days."""
        is_one = requests.c.id.in_([row.id for row in rows]) & requests.c.estimated
        found = await connection.execute(select(requests).where(is_one).with_for_update())
        old = {row.id: row for row in (from_columns(dict(each._mapping)) for each in found)}
        new = [row for row in rows if row.id in old]
        if new:
            columns = [to_columns(row) | {"row_id": row.id} for row in new]
            for each in columns:
                del each["id"], each["score"]
            replacing = update(requests).where(requests.c.id == bindparam("row_id"))
            await connection.execute(replacing, columns)
        spent = _spent(new)
        spent.subtract(_spent(old.values()))
        return spent

    async def set_score(self, request_id: str, score: float, of: str | None = None) -> int:
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
        async with self.engine.begin() as connection:
            found = (await connection.scalars(select(requests.c.id).where(named).limit(2))).all()
            if len(found) == 1:
                graded = update(requests).where(requests.c.id == found[0]).values(score=score)
                await connection.execute(graded)
        return len(found)

    async def rows(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncGenerator[LedgerRecord, None]:
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
        async with self.engine.connect() as connection:
            async for columns in await connection.stream(wanted):
                yield from_columns(dict(columns._mapping))

    async def aclose(self) -> None:
        """Let go of the database."""
        await self.engine.dispose()


def _spent(rows: Iterable[LedgerRecord]) -> Counter[tuple[str, date]]:
    """What rows add to the days of their keys."""
    found: Counter[tuple[str, date]] = Counter()
    for row in rows:
        if row.key is not None and row.cost is not None:
            found[row.key, row.time.astimezone(UTC).date()] += to_nanos(row.cost.total)
    return found
