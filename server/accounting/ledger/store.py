"""The rows of the ledger, in its database."""

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
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
from proctor.server.accounting.ledger.session_totals import SessionEntry, SessionTotals
from proctor.server.nanos import to_nanos
from proctor.server.storage.errors import RowsRefused, is_refusal, reason
from proctor.server.storage.migrate import migrate
from proctor.server.storage.tables import holds, requests, spend, texts


class Store:
    """The rows of the ledger.

    Attributes:
        engine: the SQLAlchemy engine of the database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        kind = engine.dialect.name
        insert = sqlite.insert if kind == "sqlite" else postgresql.insert
        # Idempotent: a batch is written again if it is unknown whether it was committed.
        insert_requests = insert(requests).on_conflict_do_nothing()
        self._insert_requests = insert_requests.returning(requests.c.id)
        self._insert_texts = insert(texts).on_conflict_do_nothing()
        insert_spend = insert(spend)
        new_nanos = {"nanos": spend.c.nanos + insert_spend.excluded.nanos}
        self._add_spend = insert_spend.on_conflict_do_update(
            index_elements=["key", "day"], set_=new_nanos
        )
        self._session_totals = SessionTotals(kind)

    async def migrate(self) -> None:
        """Migrate the tables to the newest version, see `storage.migrate`."""
        await migrate(self.engine)

    async def write(self, records: Sequence[LedgerRecord]) -> None:
        """Add records, in one transaction; those that already have a row are skipped.

        Their reservations are deleted, their costs added to the spending of their keys, and
        their usage to that of their sessions.
        The estimated row of a gateway that was considered lost is replaced.

        Raises:
            RowsRefused: if one of the rows can never be stored.
            Exception: if the database fails; each driver has exceptions of its own.
        """
        text_rows = [
            text_columns(record, record.texts) for record in records if record.texts is not None
        ]
        try:
            async with self.engine.begin() as connection:
                await self.insert(connection, records)
                if text_rows:
                    await connection.execute(self._insert_texts, text_rows)
        except Exception as error:
            if is_refusal(error):
                raise RowsRefused(reason(error)) from error
            raise

    async def insert(self, connection: AsyncConnection, records: Sequence[LedgerRecord]) -> None:
        """Add records as `write` does, without texts, in the transaction of the caller."""
        by_id = {record.id: record for record in records}
        rows = [to_columns(record) for record in records]
        inserted = {*await connection.scalars(self._insert_requests, rows)}
        new = [record for record in by_id.values() if record.id in inserted]
        old: list[LedgerRecord] = []
        existing = [
            record
            for record in by_id.values()
            if record.id not in inserted and not record.estimated
        ]
        if existing:
            old, replaced = await self._replace_estimates(connection, existing)
            new += replaced
        await connection.execute(delete(holds).where(holds.c.id.in_([*by_id])))
        spending = _spending(new)
        spending.subtract(_spending(old))
        if spending:
            # Sorted, so that the transactions of two gateways cannot deadlock.
            spend_rows = [
                {"key": key, "day": day, "nanos": nanos}
                for (key, day), nanos in sorted(spending.items())
            ]
            await connection.execute(self._add_spend, spend_rows)
        await self._session_totals.add(connection, _session_entries(new), _session_entries(old))

    async def _replace_estimates(
        self, connection: AsyncConnection, records: Sequence[LedgerRecord]
    ) -> tuple[list[LedgerRecord], list[LedgerRecord]]:
        """Replace the rows that were estimated; return the estimates, and what replaced them."""
        is_estimate = requests.c.id.in_([record.id for record in records]) & requests.c.estimated
        result = await connection.execute(select(requests).where(is_estimate).with_for_update())
        old = {record.id: record for record in (from_columns(dict(row._mapping)) for row in result)}
        new = [record for record in records if record.id in old]
        if new:
            rows = [to_columns(record) | {"row_id": record.id} for record in new]
            for row in rows:
                del row["id"], row["score"]
            statement = update(requests).where(requests.c.id == bindparam("row_id"))
            await connection.execute(statement, rows)
        return [*old.values()], new

    async def set_score(self, request_id: str, score: float, key: str | None = None) -> int:
        """Set the score of a request.

        Args:
            request_id: the `id` of a row, or its `request_id` if that is unique.
            score: the score of the answer, from 0 to 1.
            key: the name of the key whose requests are considered; None for all requests.

        Returns:
            The number of rows with that ID, at most 2. The score is only set if it is 1.
        """
        matches = or_(requests.c.id == request_id, requests.c.request_id == request_id)
        if key is not None:
            matches &= requests.c.key == key
        async with self.engine.begin() as connection:
            ids = (await connection.scalars(select(requests.c.id).where(matches).limit(2))).all()
            if len(ids) == 1:
                statement = update(requests).where(requests.c.id == ids[0]).values(score=score)
                await connection.execute(statement)
        return len(ids)

    async def rows(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncGenerator[LedgerRecord, None]:
        """Yield the records of a range of time, oldest first, without texts.

        Args:
            since: the start of the range, inclusive; None for no limit.
            until: the end of the range, exclusive; None for no limit.
        """
        query = select(requests).order_by(requests.c.time)
        if since is not None:
            query = query.where(requests.c.time >= since)
        if until is not None:
            query = query.where(requests.c.time < until)
        async with self.engine.connect() as connection:
            async for row in await connection.stream(query):
                yield from_columns(dict(row._mapping))

    async def aclose(self) -> None:
        """Close the connections to the database."""
        await self.engine.dispose()


def _spending(records: Iterable[LedgerRecord]) -> Counter[tuple[str, date]]:
    """Return the sum of the costs in nanos, by key and day."""
    spending: Counter[tuple[str, date]] = Counter()
    for record in records:
        if record.key is not None and record.cost is not None:
            day = record.time.astimezone(UTC).date()
            spending[record.key, day] += to_nanos(record.cost.total)
    return spending


def _session_entries(records: Iterable[LedgerRecord]) -> Iterator[SessionEntry]:
    """Yield the usage of the records that belong to a session."""
    for record in records:
        if record.session is None:
            continue
        cost = record.cost
        counts = {
            "requests": 1,
            "prompt_tokens": record.prompt_tokens,
            "thinking_tokens": record.thinking_tokens,
            "answer_tokens": record.answer_tokens,
            "completion_tokens": record.completion_tokens,
            "nanos": 0 if cost is None else to_nanos(cost.total),
            "thinking_nanos": 0 if cost is None else to_nanos(cost.thinking),
            "answer_nanos": 0 if cost is None else to_nanos(cost.answer),
        }
        group = (record.key or "", record.session, record.tier)
        yield SessionEntry(group, counts, record.time)
