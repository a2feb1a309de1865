"""Rows on their way to the database: a bounded queue, and a task that writes it in batches."""

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
"""Rows that wait at most: a minute of 1,600 requests a second. They take about 1 KB each."""

BATCH = 64
"""Rows in a transaction: few enough that no stream waits for them to be made into parameters."""

LINGER_SECONDS = 0.1
"""That a row waits for others to be written with it."""

CLOSE_SECONDS = 10.0
"""For what is left when the server stops."""


class Sink(Protocol):
    """Where rows go."""

    async def migrate(self) -> None:
        """Make ready for rows; nothing is done where all is."""

    async def write(self, rows: Sequence[LedgerRecord]) -> None:
        """Add rows, all or none; those that are there already stay as they are.

        Raises:
            RowsRefused: if one of them can never be written.
            Exception: if they can be tried again.
        """


class WriteOutcome(StrEnum):
    """What became of a row."""

    WRITTEN = "written"
    REFUSED = "refused"
    DROPPED = "dropped"


def _ignore(fate: WriteOutcome) -> None:
    pass


class Writer:
    """Takes rows at once, and writes them soon.

    A row is written within `LINGER_SECONDS` and the time of a commit. While the
    database is away rows wait, and are tried again until they are in. Only what
    exceeds the queue is dropped, the newest first, and what a closing server
    cannot write in `CLOSE_SECONDS`; both are logged and counted.
    """

    def __init__(
        self,
        sink: Sink,
        tell: Callable[[WriteOutcome], None] = _ignore,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        capacity: int = CAPACITY,
    ) -> None:
        """Make one; it writes once it was started.

        Args:
            sink: where rows go.
            tell: is told what became of each row.
            sleep: waits between two tries.
            capacity: rows that wait at most.
        """
        self._sink = sink
        self._tell = tell
        self._sleep = sleep
        self._capacity = capacity
        self._queue: deque[LedgerRecord] = deque()
        self._taken = 0
        self._settled = 0
        self._arrived = asyncio.Event()
        self._hurried = asyncio.Event()
        self._progress = asyncio.Condition()
        self._attempting = asyncio.Lock()
        self._failing = False
        self._full = False
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return len(self._queue)

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run())

    def put(self, row: LedgerRecord) -> None:
        """Take a row; never waits."""
        if len(self._queue) >= self._capacity:
            if not self._full:
                logger.error("the ledger's queue is full: rows are lost until it can be written")
            self._full = True
            self._tell(WriteOutcome.DROPPED)
            return
        self._full = False
        self._queue.append(row)
        self._taken += 1
        self._arrived.set()

    async def flush(self) -> None:
        """Return when every row that was taken until now is written, or can never be."""
        target = self._taken
        async with self._progress:
            while self._settled < target:
                self._hurried.set()
                await self._progress.wait()

    async def alone(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do some work while no row is written."""
        async with self._attempting:
            await work()

    async def aclose(self) -> None:
        """Write what is left, and end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.flush()
        if self._task is not None:
            # A connection that is torn out of a transaction is closed later than the event loop.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._attempting.acquire()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._queue:
            logger.error("%d rows of the ledger could not be written and are lost", self.waiting)
            for _ in self._queue:
                self._tell(WriteOutcome.DROPPED)

    async def _run(self) -> None:
        await self._persist(self._sink.migrate)
        while True:
            await self._arrived.wait()
            # `wait_for` can lose a cancellation that comes with the event (until Python 3.12).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    await self._hurried.wait()
            self._hurried.clear()
            self._arrived.clear()
            while self._queue:
                batch = [*islice(self._queue, BATCH)]
                await self._write(batch)

    async def _write(self, rows: Sequence[LedgerRecord]) -> None:
        try:
            await self._persist(lambda: self._attempt(rows))
        except RowsRefused as error:
            if len(rows) > 1:
                for row in rows:
                    await self._write([row])
                return
            logger.error("the ledger's database refuses the row of %s: %s", rows[0].id, error)
            await self._settle(rows, WriteOutcome.REFUSED)
        else:
            await self._settle(rows, WriteOutcome.WRITTEN)

    async def _attempt(self, rows: Sequence[LedgerRecord]) -> None:
        if self._failing:  # whatever is there now may have no tables yet
            await self._sink.migrate()
        await self._sink.write(rows)

    async def _settle(self, rows: Sequence[LedgerRecord], fate: WriteOutcome) -> None:
        for _ in rows:
            self._queue.popleft()
            self._tell(fate)
        async with self._progress:
            self._settled += len(rows)
            self._progress.notify_all()

    async def _persist(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Try until it is done.

        Raises:
            RowsRefused: if it never will be.
        """
        delay = FIRST_DELAY_SECONDS
        while True:
            try:
                async with self._attempting:
                    await attempt()
            except RowsRefused:
                raise
            except Exception as error:
                if not self._failing:
                    logger.warning("the ledger cannot be written now, rows wait: %s", reason(error))
                self._failing = True
                await self._sleep(delay)
                delay = min(2 * delay, LAST_DELAY_SECONDS)
            else:
                if self._failing:
                    logger.warning("the ledger is written again; %d rows waited", self.waiting)
                self._failing = False
                return
