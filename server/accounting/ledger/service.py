"""The ledger of a running server."""

import asyncio
import logging
from collections.abc import Callable

from proctor.server.accounting.ledger.gateways import GatewayStore
from proctor.server.accounting.ledger.lease import Lease
from proctor.server.accounting.ledger.records import DraftRecord, LedgerRecord
from proctor.server.accounting.ledger.store import Store
from proctor.server.accounting.ledger.writer import WriteOutcome, Writer
from proctor.server.config.ledger import LedgerSettings
from proctor.server.config.settings import ConfigError
from proctor.server.storage.database import open_database
from proctor.server.storage.errors import is_unavailable, reason

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""That a request waits for rows on their way to the database."""


class Ledger:
    """Takes rows and outcomes, from entering the context to leaving it."""

    def __init__(self, store: Store, gateway: str, tell: Callable[[WriteOutcome], None]) -> None:
        self._store = store
        self._drafts: dict[str, Callable[[], DraftRecord]] = {}
        self._writer = Writer(store, tell)
        self._lease = Lease(GatewayStore(store), gateway, self._running, self._writer.alone)

    async def __aenter__(self) -> "Ledger":
        self._writer.start()
        self._lease.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._writer.aclose()
        await self._lease.aclose()
        await self._store.aclose()

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return self._writer.waiting

    def begin(self, row_id: str, draft: Callable[[], DraftRecord]) -> None:
        """Know of a request that runs, until its row is put.

        Args:
            row_id: the `id` that its row will have.
            draft: tells what is known of it.
        """
        self._drafts[row_id] = draft

    def put(self, row: LedgerRecord) -> None:
        """Take a row; never waits."""
        self._drafts.pop(row.id, None)
        self._writer.put(row)

    def _running(self) -> list[DraftRecord]:
        return [draft() for draft in self._drafts.values()]

    async def set_score(self, request_id: str, score: float, of: str | None = None) -> int:
        """Attach an outcome to a request that was answered; see `Store.grade`.

        Raises:
            TimeoutError: if the database is away.
            Exception: whatever else keeps it from being written.
        """
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._writer.flush()
            return await self._store.set_score(request_id, score, of)


def open_ledger(
    settings: LedgerSettings, gateway: str, tell: Callable[[WriteOutcome], None]
) -> Ledger | None:
    """The ledger that the settings ask for, if they do.

    Args:
        settings: where it is.
        gateway: which of those that share it this one is.
        tell: is told what became of each row.

    Raises:
        BadSettings: if it cannot be there.
    """
    url = settings.url.get_secret_value()
    return Ledger(open_store(url), gateway, tell) if url else None


def open_store(url: str, *, reads_only: bool = False) -> Store:
    """A ledger's database, not connected to yet.

    Raises:
        BadSettings: if there can be none.
    """
    return Store(open_database(url, reads_only=reads_only))


async def prepare(url: str) -> None:
    """Bring a ledger's database up to date.

    Raises:
        BadSettings: if it can never take rows.
        OSError: if it cannot be reached.
    """
    store = open_store(url)
    try:
        await store.migrate()
    except Exception as error:
        if is_unavailable(error):
            raise OSError(f"the ledger cannot be reached: {reason(error)}") from error
        raise ConfigError(f"ledger.url: {reason(error)} (empty: no ledger)") from error
    finally:
        await store.aclose()
