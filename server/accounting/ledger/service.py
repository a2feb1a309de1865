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
from proctor.server.config.section import ConfigError
from proctor.server.storage.database import open_database
from proctor.server.storage.errors import is_unavailable, reason

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""The maximum time that feedback waits for queued rows and the database."""


class Ledger:
    """Accepts records and scores; an async context manager that runs the writer and the lease."""

    def __init__(
        self, store: Store, gateway: str, on_outcome: Callable[[WriteOutcome], None]
    ) -> None:
        self._store = store
        self._drafts: dict[str, Callable[[], DraftRecord]] = {}
        self._writer = Writer(store, on_outcome)
        self._lease = Lease(
            GatewayStore(store), gateway, self._current_drafts, self._writer.run_exclusively
        )

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
        """The number of queued rows."""
        return self._writer.waiting

    def begin(self, record_id: str, draft: Callable[[], DraftRecord]) -> None:
        """Register a running request, until its record is `put`.

        Args:
            record_id: the `id` of its record.
            draft: returns the draft of its record as of now.
        """
        self._drafts[record_id] = draft

    def put(self, record: LedgerRecord) -> None:
        """Add a record, without blocking."""
        self._drafts.pop(record.id, None)
        self._writer.put(record)

    def _current_drafts(self) -> list[DraftRecord]:
        return [draft() for draft in self._drafts.values()]

    async def flush(self) -> None:
        """Wait until every row that was queued before this call is written or rejected."""
        await self._writer.flush()

    async def set_score(self, request_id: str, score: float, key: str | None = None) -> int:
        """Set the score of a request, see `Store.set_score`.

        Raises:
            TimeoutError: if the database does not respond in time.
            Exception: if the database fails; each driver has exceptions of its own.
        """
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._writer.flush()
            return await self._store.set_score(request_id, score, key)


def open_ledger(
    settings: LedgerSettings, gateway: str, on_outcome: Callable[[WriteOutcome], None]
) -> Ledger | None:
    """Return the ledger of the settings, or None if it is disabled.

    Args:
        settings: the settings of the ledger.
        gateway: the ID of this gateway, among those that share the ledger.
        on_outcome: called with the outcome of each row.

    Raises:
        ConfigError: if the URL is invalid, or the folder of its file cannot be used.
    """
    url = settings.url.get_secret_value()
    return Ledger(open_store(url), gateway, on_outcome) if url else None


def open_store(url: str, *, reads_only: bool = False) -> Store:
    """Return the store of a ledger's URL, which connects when it is first used.

    Raises:
        ConfigError: if the URL is invalid, or the folder of its file cannot be used.
    """
    return Store(open_database(url, reads_only=reads_only))


async def prepare(url: str) -> None:
    """Migrate the database of a ledger.

    Raises:
        ConfigError: if the database cannot be used as a ledger.
        OSError: if the database is unavailable.
    """
    store = open_store(url)
    try:
        await store.migrate()
    except Exception as error:
        if is_unavailable(error):
            raise OSError(f"The ledger cannot be reached: {reason(error)}") from error
        raise ConfigError(
            f"ledger.url: {reason(error)} (an empty URL disables the ledger)"
        ) from error
    finally:
        await store.aclose()
