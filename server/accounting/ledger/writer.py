"""Writes records to the database: a bounded queue, and a task that writes it in batches."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from itertools import islice
from typing import Protocol

from proctor.server.accounting.ledger.records import LedgerRecord
from proctor.server.storage.errors import RowsRefused, reason
from proctor.server.storage.retry import FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS

logger = logging.getLogger(__name__)

CAPACITY = 100_000
"""The maximum number of queued rows, those of a minute at 1,600 requests per second; a row takes
about 1 KB."""

BATCH_SIZE = 64
"""The maximum number of rows per transaction. Converting a larger batch to parameters would delay
running streams."""

LINGER_SECONDS = 0.1
"""The time that a row waits for others, to be written in one batch."""

CLOSE_SECONDS = 10.0
"""The maximum time that a stopping server spends on writing the queue."""


class Sink(Protocol):
    """Stores records."""

    async def migrate(self) -> None:
        """Migrate the tables to the newest version; must be idempotent."""

    async def write(self, records: Sequence[LedgerRecord]) -> None:
        """Add records, in one transaction; those that already have a row are skipped.

        Raises:
            RowsRefused: if one of the rows can never be stored.
            Exception: if the write can be retried.
        """


class WriteOutcome(StrEnum):
    """The outcome of writing a row."""

    WRITTEN = "written"
    REFUSED = "refused"
    DROPPED = "dropped"


def _ignore(outcome: WriteOutcome) -> None:
    pass


class Writer:
    """Queues records without blocking, and writes them in batches.

    A row is written after `LINGER_SECONDS` and the time of a commit. While the database is
    unavailable, rows stay in the queue, and are retried until they are written. Rows are
    only dropped if the queue is full, newest first, or if a stopping server cannot write
    them within `close_seconds`; both are logged and counted.
    """

    def __init__(
        self,
        sink: Sink,
        on_outcome: Callable[[WriteOutcome], None] = _ignore,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        capacity: int = CAPACITY,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        """Initialize the writer, which writes once it is started.

        Args:
            sink: stores the records.
            on_outcome: called with the outcome of each row.
            sleep: waits between two attempts.
            capacity: the maximum number of queued rows.
            close_seconds: the maximum time for writing the queue when the writer is closed.
        """
        self._sink = sink
        self._on_outcome = on_outcome
        self._sleep = sleep
        self._capacity = capacity
        self._close_seconds = close_seconds
        self._queue: deque[LedgerRecord] = deque()
        self._accepted = 0
        self._completed = 0
        self._row_queued = asyncio.Event()
        self._flush_requested = asyncio.Event()
        self._progress = asyncio.Condition()
        self._write_lock = asyncio.Lock()
        self._failing = False
        self._full = False
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """The number of queued rows."""
        return len(self._queue)

    def start(self) -> None:
        """Start to write."""
        self._task = asyncio.create_task(self._run())

    def put(self, record: LedgerRecord) -> None:
        """Queue a record without blocking, or drop it if the queue is full."""
        if len(self._queue) >= self._capacity:
            if not self._full:
                logger.error(
                    "The ledger's queue is full; rows are lost until the database is available"
                )
            self._full = True
            self._on_outcome(WriteOutcome.DROPPED)
            return
        self._full = False
        self._queue.append(record)
        self._accepted += 1
        self._row_queued.set()

    async def flush(self) -> None:
        """Wait until every row that was queued before this call is written or rejected."""
        target = self._accepted
        async with self._progress:
            while self._completed < target:
                self._flush_requested.set()
                await self._progress.wait()

    async def run_exclusively(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a function while no row is being written."""
        async with self._write_lock:
            await work()

    async def aclose(self) -> None:
        """Write the queue, and stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._close_seconds):
                await self.flush()
        if self._task is not None:
            # Wait for a running transaction: a connection that is cancelled in the middle of one
            # would be closed after the event loop.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._close_seconds):
                    await self._write_lock.acquire()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._queue:
            logger.error("%d rows of the ledger could not be written, and are lost", self.waiting)
            for _ in self._queue:
                self._on_outcome(WriteOutcome.DROPPED)

    async def _run(self) -> None:
        await self._retry(self._sink.migrate)
        while True:
            await self._row_queued.wait()
            # `wait_for` can lose a cancellation that coincides with the event (until Python 3.12).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    await self._flush_requested.wait()
            self._flush_requested.clear()
            self._row_queued.clear()
            while self._queue:
                batch = [*islice(self._queue, BATCH_SIZE)]
                await self._write(batch)

    async def _write(self, records: Sequence[LedgerRecord]) -> None:
        try:
            await self._retry(lambda: self._attempt(records))
        except RowsRefused as error:
            if len(records) > 1:
                for record in records:
                    await self._write([record])
                return
            logger.error("The ledger's database rejects the row of %s: %s", records[0].id, error)
            await self._complete(records, WriteOutcome.REFUSED)
        else:
            await self._complete(records, WriteOutcome.WRITTEN)

    async def _attempt(self, records: Sequence[LedgerRecord]) -> None:
        if self._failing:  # the database may be a new one, without tables
            await self._sink.migrate()
        await self._sink.write(records)

    async def _complete(self, records: Sequence[LedgerRecord], outcome: WriteOutcome) -> None:
        for _ in records:
            self._queue.popleft()
            self._on_outcome(outcome)
        async with self._progress:
            self._completed += len(records)
            self._progress.notify_all()

    async def _retry(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Retry until an attempt succeeds, with exponential backoff.

        Raises:
            RowsRefused: if no attempt can succeed.
        """
        delay = FIRST_DELAY_SECONDS
        while True:
            try:
                async with self._write_lock:
                    await attempt()
            except RowsRefused:
                raise
            except Exception as error:
                if not self._failing:
                    logger.warning(
                        "The ledger cannot be written; rows stay in the queue: %s", reason(error)
                    )
                self._failing = True
                await self._sleep(delay)
                delay = min(2 * delay, LAST_DELAY_SECONDS)
            else:
                if self._failing:
                    logger.warning(
                        "The ledger can be written again, with %d rows in the queue", self.waiting
                    )
                self._failing = False
                return
