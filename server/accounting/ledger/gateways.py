"""The leases of the gateways that share a database, and the takeover of lost gateways."""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import delete, select, union, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from proctor.server.accounting.ledger.process import Process
from proctor.server.accounting.ledger.records import DraftRecord, LedgerRecord
from proctor.server.accounting.ledger.store import Store
from proctor.server.storage.errors import is_refusal, reason
from proctor.server.storage.responses import FAILED, RUNNING
from proctor.server.storage.tables import gateways, holds, replays, responses

logger = logging.getLogger(__name__)

FAILED_LIFETIME = timedelta(hours=1)
"""The time for which the failed responses of a lost gateway are stored."""


class ObservedGateway(NamedTuple):
    """A gateway, as last read from the database.

    Attributes:
        id: the ID of the gateway.
        beat: the number of times that it has renewed its lease; None if it has no lease,
            but has left reservations or idempotency keys.
        process: the process of the gateway, or None if it has no lease.
    """

    id: str
    beat: int | None
    process: Process | None


class GatewayStore:
    """The leases of gateways, in the database of the ledger."""

    def __init__(self, store: Store) -> None:
        """Initialize the store.

        Args:
            store: the rows of the ledger, in the same database.
        """
        self._store = store
        kind = store.engine.dialect.name
        insert = sqlite.insert if kind == "sqlite" else postgresql.insert
        insert_lease = insert(gateways)
        new_beat = {"beat": insert_lease.excluded.beat}
        self._upsert_lease = insert_lease.on_conflict_do_update(
            index_elements=["id"], set_=new_beat
        )
        insert_draft = insert(holds)
        # A reservation that was settled meanwhile is more recent, and stays. One that was deleted,
        # because another gateway considered this one lost, is inserted again.
        new_draft = {"gateway": insert_draft.excluded.gateway, "draft": insert_draft.excluded.draft}
        self._upsert_draft = insert_draft.on_conflict_do_update(
            index_elements=["id"], set_=new_draft, where=~holds.c.settled
        )

    async def migrate(self) -> None:
        """Migrate the tables to the newest version."""
        await self._store.migrate()

    async def renew(
        self, gateway: str, process: Process, beat: int, drafts: Sequence[DraftRecord]
    ) -> None:
        """Renew the lease of a gateway, and store the drafts of its running requests.

        Args:
            gateway: the ID of the gateway.
            process: the process of the gateway.
            beat: the number of this renewal.
            drafts: the drafts of the running requests. None of their rows may be written
                before this method returns.
        """
        lease = {
            "id": gateway,
            "host": process.host,
            "pid": process.pid,
            "birth": process.birth,
            "beat": beat,
        }
        rows = [_to_row(gateway, draft) for draft in drafts]
        async with self._store.engine.begin() as connection:
            await connection.execute(self._upsert_lease, lease)
            if rows:
                # Sorted, so that concurrent transactions cannot deadlock.
                await connection.execute(self._upsert_draft, sorted(rows, key=itemgetter("id")))

    async def others(self, gateway: str) -> list[ObservedGateway]:
        """Return the other gateways that have a lease, or have left something."""
        ids = union(
            select(gateways.c.id),
            select(holds.c.gateway),
            select(replays.c.gateway).where(replays.c.gateway.is_not(None)),
            select(responses.c.gateway).where(responses.c.gateway.is_not(None)),
        ).subquery()
        query = (
            select(ids.c.id.label("name"), gateways)
            .select_from(ids.outerjoin(gateways, ids.c.id == gateways.c.id))
            .where(ids.c.id != gateway)
        )
        async with self._store.engine.connect() as connection:
            return [_from_row(row._mapping) for row in await connection.execute(query)]

    async def take_over(self, lost: ObservedGateway) -> int:
        """Settle what a lost gateway has left. Of several gateways that try, one succeeds.

        The last drafts of its requests are written as rows, its reservations are deleted,
        its unfinished idempotency keys are released, and its background responses have failed.

        Args:
            lost: the gateway, as it was last observed. If it has renewed its lease since
                then, nothing happens.

        Returns:
            The number of rows that were written.
        """
        async with self._store.engine.begin() as connection:
            if lost.beat is not None:
                is_unchanged = (gateways.c.id == lost.id) & (gateways.c.beat == lost.beat)
                if not (await connection.execute(delete(gateways).where(is_unchanged))).rowcount:
                    return 0
            return await self._settle(connection, lost.id)

    async def retire(self, gateway: str) -> None:
        """Delete the lease of a gateway, and settle what it may have left."""
        async with self._store.engine.begin() as connection:
            await connection.execute(delete(gateways).where(gateways.c.id == gateway))
            await self._settle(connection, gateway)

    async def _settle(self, connection: AsyncConnection, gateway: str) -> int:
        statement = delete(holds).where(holds.c.gateway == gateway).returning(holds.c.draft)
        drafts = [draft for draft in await connection.scalars(statement) if draft is not None]
        for draft in drafts:
            await self._insert(connection, LedgerRecord.from_json(draft))
        await connection.execute(delete(replays).where(replays.c.gateway == gateway))
        await _end_responses(connection, gateway)
        return len(drafts)

    async def _insert(self, connection: AsyncConnection, record: LedgerRecord) -> None:
        try:
            async with connection.begin_nested():
                await self._store.insert(connection, [record])
        except Exception as error:
            if not is_refusal(error):
                raise
            logger.error(
                "The ledger's database rejects the row of %s: %s", record.id, reason(error)
            )


async def _end_responses(connection: AsyncConnection, gateway: str) -> None:
    """Mark the responses that a gateway was generating as failed; they expire in a while."""
    own = responses.c.gateway == gateway
    is_running = own & responses.c.status.in_(RUNNING)
    expires = datetime.now(UTC) + FAILED_LIFETIME
    await connection.execute(update(responses).where(is_running).values(status=FAILED))
    await connection.execute(update(responses).where(own).values(gateway=None, expires=expires))


def _to_row(gateway: str, draft: DraftRecord) -> dict[str, Any]:
    record = draft.record
    return {
        "id": record.id,
        "key": record.key or "",
        "gateway": gateway,
        "placed": record.time,
        "tokens": draft.reserved.tokens,
        "nanos": draft.reserved.nanos,
        "thinking": draft.reserved.thinking,
        "session": record.session,
        "tier": record.tier,
        "draft": record.to_json(),
    }


def _from_row(row: Mapping[Any, Any]) -> ObservedGateway:
    if row["beat"] is None:
        return ObservedGateway(row["name"], None, None)
    process = Process(row["host"], row["pid"], row["birth"])
    return ObservedGateway(row["name"], row["beat"], process)
