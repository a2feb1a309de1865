"""The writer's queue and batches, over a sink that a test controls."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from proctor.server.accounting.ledger.records import LedgerRecord
from proctor.server.accounting.ledger.writer import (
    BATCH_SIZE,
    WriteOutcome,
    Writer,
)
from proctor.server.storage.errors import RowsRefused
from proctor.server.storage.retry import LAST_DELAY_SECONDS
from tests.server.accounting.ledger.records import make_record
from tests.server.harness import with_timeout
from tests.waiting import PATIENCE


class Rows:
    """A sink that can be made unavailable for a time, and can reject rows."""

    def __init__(self) -> None:
        self.batches: list[list[LedgerRecord]] = []
        self.tries = 0
        self.away_for = 0.0
        self.slept: list[float] = []
        self.refused: set[str] = set()
        self.migrated = 0
        self.written = asyncio.Event()

    @property
    def rows(self) -> list[LedgerRecord]:
        return [row for batch in self.batches for row in batch]

    async def migrate(self) -> None:
        self._answer()
        self.migrated += 1

    async def write(self, rows: Sequence[LedgerRecord]) -> None:
        self._answer()
        if any(row.id in self.refused for row in rows):
            raise RowsRefused("never")
        await asyncio.sleep(0)
        self.batches.append([*rows])
        self.written.set()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    def _answer(self) -> None:
        self.tries += 1
        if sum(self.slept) < self.away_for:
            raise ConnectionRefusedError("away")


async def test_rows_are_written_in_order_and_in_batches() -> None:
    sink, outcomes = Rows(), Counter[WriteOutcome]()
    writer = Writer(sink, lambda outcome: outcomes.update([outcome]))
    rows = [make_record(number) for number in range(3 * BATCH_SIZE + 1)]
    for each in rows:
        writer.put(each)  # also before the writer is started
    writer.start()

    await with_timeout(writer.flush())
    writer.put(make_record("last"))
    await with_timeout(writer.aclose())

    assert sink.rows == [*rows, make_record("last")]
    assert [len(batch) for batch in sink.batches] == [BATCH_SIZE] * 3 + [1, 1]
    assert outcomes == {WriteOutcome.WRITTEN: len(rows) + 1}
    assert (writer.waiting, sink.migrated) == (0, 1)


async def test_a_row_is_written_without_a_flush() -> None:
    sink = Rows()
    writer = Writer(sink)
    writer.start()
    writer.put(make_record(1))

    await with_timeout(sink.written.wait())

    assert sink.rows == [make_record(1)]
    await writer.aclose()


async def test_an_outage_of_a_minute_loses_no_row(caplog: pytest.LogCaptureFixture) -> None:
    sink = Rows()
    writer = Writer(sink, sleep=sink.sleep)
    writer.start()
    writer.put(make_record("before"))
    await with_timeout(writer.flush())

    sink.away_for = 60.0
    rows = [make_record(number) for number in range(60 * 500)]  # 500 requests per second
    for each in rows:
        writer.put(each)
    await with_timeout(writer.flush())
    await writer.aclose()

    assert sink.rows == [make_record("before"), *rows]
    assert 60 <= sum(sink.slept) < 60 + LAST_DELAY_SECONDS
    assert max(sink.slept) == LAST_DELAY_SECONDS
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


async def test_a_database_unavailable_at_the_start_is_migrated_later() -> None:
    sink = Rows()
    sink.away_for = 5.0
    writer = Writer(sink, sleep=sink.sleep)
    writer.start()
    writer.put(make_record(1))

    await with_timeout(writer.flush())
    await writer.aclose()

    assert (sink.migrated, sink.rows) == (1, [make_record(1)])


async def test_a_refused_row_does_not_affect_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink, outcomes = Rows(), Counter[WriteOutcome]()
    sink.refused = {make_record(2).id}
    writer = Writer(sink, lambda outcome: outcomes.update([outcome]))
    writer.start()
    for number in range(4):
        writer.put(make_record(number))

    await with_timeout(writer.aclose())

    assert sink.rows == [make_record(0), make_record(1), make_record(3)]
    assert outcomes == {WriteOutcome.WRITTEN: 3, WriteOutcome.REFUSED: 1}
    assert make_record(2).id in caplog.text


async def test_rows_beyond_the_capacity_are_dropped_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink, outcomes = Rows(), Counter[WriteOutcome]()
    writer = Writer(sink, lambda outcome: outcomes.update([outcome]), capacity=3)
    for number in range(5):
        writer.put(make_record(number))
    writer.start()

    await with_timeout(writer.aclose())

    assert sink.rows == [make_record(0), make_record(1), make_record(2)]
    assert outcomes == {WriteOutcome.WRITTEN: 3, WriteOutcome.DROPPED: 2}
    assert caplog.text.count("queue is full") == 1


async def test_rows_unwritten_at_the_end_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink, outcomes = Rows(), Counter[WriteOutcome]()
    sink.away_for = float("inf")
    writer = Writer(
        sink, lambda outcome: outcomes.update([outcome]), sleep=sink.sleep, close_seconds=0.01
    )
    writer.start()
    writer.put(make_record(1))

    await with_timeout(writer.aclose())

    assert outcomes == {WriteOutcome.DROPPED: 1}
    assert "1 rows of the ledger could not be written" in caplog.text


@pytest.mark.parametrize("steps", range(8))
async def test_closing_ends_the_writer_at_any_moment(steps: int) -> None:
    writer = Writer(Rows(), close_seconds=0)
    writer.start()
    for _ in range(4):
        await asyncio.sleep(0)
    writer.put(make_record(1))
    flushing = asyncio.create_task(writer.flush())
    for _ in range(steps):
        await asyncio.sleep(0)
    closing = asyncio.create_task(writer.aclose())

    done, _ = await asyncio.wait({closing}, timeout=PATIENCE)

    flushing.cancel()
    assert done
