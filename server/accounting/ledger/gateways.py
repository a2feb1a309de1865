"""The gateways that share a ledger's database: who lives, and what the others left."""

import logging
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import delete, select, union
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from proctor.server.accounting.ledger.process import Process
from proctor.server.accounting.ledger.records import DraftRecord, LedgerRecord
from proctor.server.accounting.ledger.store import Store
from proctor.server.storage.errors import is_refusal, reason
from proctor.server.storage.tables import gateways, holds, replays

logger = logging.getLogger(__name__)


class Seen(NamedTuple):
    """A gateway as it was seen.

    Attributes:
        id: its own.
        beat: how many times it had renewed its lease; None if it has no lease, and left
            something all the same.
        process: which it is, if it has a lease.
    """

    id: str
    beat: int | None
    process: Process | None


class GatewayStore:
    """Leases in the ledger's database."""

    def __init__(self, store: Store) -> None:
        """Keep them beside the rows of a store."""
        self._store = store
        kind = store.engine.dialect.name
        insert = sqlite.insert if kind == "sqlite" else postgresql.insert
        leasing = insert(gateways)
        renewed = {"beat": leasing.excluded.beat}
        self._lease = leasing.on_conflict_do_update(index_elements=["id"], set_=renewed)
        drafting = insert(holds)
        # What was settled beside this is newer, and stays; but a hold that was taken away, by
        # whoever thought this gateway lost, is put back.
        drafted = {"gateway": drafting.excluded.gateway, "draft": drafting.excluded.draft}
        self._draft = drafting.on_conflict_do_update(
            index_elements=["id"], set_=drafted, where=~holds.c.settled
        )

    async def migrate(self) -> None:
        """See `Store`."""
        await self._store.migrate()

    async def renew(
        self, gateway: str, process: Process, beat: int, drafts: Sequence[DraftRecord]
    ) -> None:
        """Renew a lease, and keep what is known of its gateway's requests.

        Args:
            gateway: whose it is.
            process: which that is.
            beat: how many times it was renewed before.
            drafts: of the requests that run. None of them may have a row before this is done.
        """
        lease = {
            "id": gateway,
            "host": process.host,
            "pid": process.pid,
            "birth": process.birth,
            "beat": beat,
        }
        running = [_columns(gateway, draft) for draft in drafts]
        async with self._store.engine.begin() as connection:
            await connection.execute(self._lease, lease)
            if running:
                await connection.execute(self._draft, sorted(running, key=itemgetter("id")))

    async def others(self, gateway: str) -> list[Seen]:
        """Every gateway that has a lease or left something, but one."""
        named = union(
            select(gateways.c.id),
            select(holds.c.gateway),
            select(replays.c.gateway).where(replays.c.gateway.is_not(None)),
        ).subquery()
        wanted = (
            select(named.c.id.label("name"), gateways)
            .select_from(named.outerjoin(gateways, named.c.id == gateways.c.id))
            .where(named.c.id != gateway)
        )
        async with self._store.engine.connect() as connection:
            return [_seen(row._mapping) for row in await connection.execute(wanted)]

    async def take_over(self, lost: Seen) -> int:
        """Settle what a gateway left: of several who try, one does.

        Its requests get their rows, as they were when it last told of them; nothing is held
        for them any more, and the names that clients gave them are free.

        Args:
            lost: the gateway, as it was seen last; if it has renewed its lease since then,
                nothing is done.

        Returns:
            How many of its requests have such a row.
        """
        async with self._store.engine.begin() as connection:
            if lost.beat is not None:
                same = (gateways.c.id == lost.id) & (gateways.c.beat == lost.beat)
                if not (await connection.execute(delete(gateways).where(same))).rowcount:
                    return 0
            return await self._settle(connection, lost.id)

    async def retire(self, gateway: str) -> None:
        """End a lease, and settle what its gateway may have left."""
        async with self._store.engine.begin() as connection:
            await connection.execute(delete(gateways).where(gateways.c.id == gateway))
            await self._settle(connection, gateway)

    async def _settle(self, connection: AsyncConnection, gateway: str) -> int:
        left = delete(holds).where(holds.c.gateway == gateway).returning(holds.c.draft)
        drafts = [draft for draft in await connection.scalars(left) if draft is not None]
        for draft in drafts:
            await self._enter(connection, LedgerRecord.from_json(draft))
        await connection.execute(delete(replays).where(replays.c.gateway == gateway))
        return len(drafts)

    async def _enter(self, connection: AsyncConnection, row: LedgerRecord) -> None:
        try:
            async with connection.begin_nested():
                await self._store.enter(connection, [row])
        except Exception as error:
            if not is_refusal(error):
                raise
            logger.error("the ledger's database refuses the row of %s: %s", row.id, reason(error))


def _columns(gateway: str, draft: DraftRecord) -> dict[str, Any]:
    row = draft.row
    return {
        "id": row.id,
        "key": row.key or "",
        "gateway": gateway,
        "placed": row.time,
        "tokens": draft.held.tokens,
        "nanos": draft.held.nanos,
        "draft": row.to_json(),
    }


def _seen(found: Mapping[Any, Any]) -> Seen:
    if found["beat"] is None:
        return Seen(found["name"], None, None)
    process = Process(found["host"], found["pid"], found["birth"])
    return Seen(found["name"], found["beat"], process)
