"""Writing and reading records in SQLite and in PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.command import downgrade
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from proctor.server.accounting.ledger.records import LedgerRecord, RecordedTexts
from proctor.server.accounting.ledger.store import Store
from proctor.server.pricing import Cost
from proctor.server.storage.database import connect, read_url, sqlite_file
from proctor.server.storage.errors import LedgerError, RowsRefused
from proctor.server.storage.migrate import MIGRATIONS, check_version
from proctor.server.storage.tables import metadata, requests, texts
from tests.server.accounting.ledger.records import NOON, make_cost, make_record
from tests.server.harness import with_timeout

Read = Callable[..., AsyncIterator[LedgerRecord]]

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=32)
MONEY = st.decimals("0", "10000", allow_nan=False, places=12)
COUNTS = st.integers(0, 2**40)
SECONDS = st.floats(0, 1e6)
COSTS = st.none() | st.builds(Cost, st.just("EUR"), MONEY, MONEY, MONEY)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
ROWS = st.builds(
    LedgerRecord,
    id=st.just(""),
    request_id=WORDS,
    time=MOMENTS,
    key=st.none() | WORDS,
    model=WORDS,
    status=st.integers(100, 599),
    tier=WORDS,
    source=st.just("router"),
    asked_min_tokens=COUNTS,
    asked_max_tokens=st.none() | COUNTS,
    min_tokens=COUNTS,
    max_tokens=st.none() | COUNTS,
    clamped_by=WORDS,
    choices=st.integers(1, 128),
    prompt_tokens=COUNTS,
    cached_tokens=st.none() | COUNTS,
    thinking_tokens=COUNTS,
    forced_tokens=COUNTS,
    answer_tokens=COUNTS,
    completion_tokens=COUNTS,
    continuations=COUNTS,
    end_reason=st.just("natural"),
    finish_reason=st.just("stop"),
    first_reasoning_seconds=st.none() | SECONDS,
    first_answer_seconds=st.none() | SECONDS,
    seconds=SECONDS,
    cost=COSTS,
    score=st.none() | st.floats(0, 1),
    texts=st.none(),
)


async def all_of(read: Read) -> list[LedgerRecord]:
    return [row async for row in read()]


@given(rows=st.lists(ROWS, min_size=1, max_size=5))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_records_are_read_as_they_were_written(url: str, rows: list[LedgerRecord]) -> None:
    rows = [replace(row, id=uuid4().hex) for row in rows]  # all examples share one database
    store = Store(connect(url))
    try:
        await store.migrate()
        await store.write(rows)
        found = {row.id: row async for row in store.rows()}
    finally:
        await store.aclose()

    assert [found[row.id] for row in rows] == rows


async def test_money_is_exact(store: Store) -> None:
    tenth = Decimal("0.100000000000000000000001")
    await store.write([make_record(n, cost=Cost("USD", tenth, tenth, tenth)) for n in range(10)])

    total = sum([row.cost.total async for row in store.rows() if row.cost], Decimal())

    assert total == 30 * tenth


async def test_the_migrations_create_the_declared_tables(store: Store, url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        return [*compare_metadata(MigrationContext.configure(connection), metadata)]

    engine = connect(url)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()
    assert {field.name for field in fields(LedgerRecord)} - {"cost", "texts"} < {*requests.c.keys()}


@pytest.mark.parametrize("version", ["0001", "0002", "0003", "0004", "0005"])
async def test_the_rows_of_every_earlier_version_are_kept(
    version: str, store: Store, url: str
) -> None:
    """As written before the columns of later versions, of which these rows use none."""
    records = [make_record(1), make_record(2, cost=make_cost("0.25"))]
    await store.write(records)

    def go_back(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", MIGRATIONS)
        config.attributes["connection"] = connection
        downgrade(config, version)

    engine = connect(url)
    async with engine.begin() as connection:
        await connection.run_sync(go_back)
    await engine.dispose()
    with pytest.raises(LedgerError, match=version):
        await check_version(store.engine)
    await store.migrate()
    await store.write([make_record(3)])

    assert {found.id: found async for found in store.rows()} == {
        record.id: record for record in (*records, make_record(3))
    }


async def test_concurrent_migrations_succeed(url: str) -> None:
    stores = [Store(connect(url)) for _ in range(4)]

    await asyncio.gather(*(store.migrate() for store in stores))
    await stores[0].write([make_record(1)])
    await stores[3].migrate()

    assert [found async for found in stores[1].rows()] == [make_record(1)]
    await asyncio.gather(*(store.aclose() for store in stores))


async def test_writing_a_batch_twice_keeps_the_first_rows(store: Store) -> None:
    await store.write([make_record(1), make_record(2)])
    await store.write([make_record(1, status=500), make_record(3)])

    assert {found.id: found.status async for found in store.rows()} == {
        make_record(number).id: 200 for number in (1, 2, 3)
    }


async def test_rows_are_read_by_time_and_in_order(store: Store) -> None:
    hours = [timedelta(hours=hour) for hour in range(4)]
    await store.write([make_record(n, time=NOON + hour) for n, hour in enumerate(reversed(hours))])
    elsewhere = timezone(timedelta(hours=5))

    whole = [found.time async for found in store.rows()]
    since, until = (NOON + hours[1]).astimezone(elsewhere), NOON + hours[3]
    part = [found.time async for found in store.rows(since, until)]

    assert whole == [NOON + hour for hour in hours]
    assert part == [NOON + hours[1], NOON + hours[2]]


async def test_texts_are_stored_in_their_own_table(store: Store, url: str) -> None:
    recorded = RecordedTexts('{"messages": []}', "hm\0m", "grüß dich \U0001f600")
    await store.write([make_record(1, texts=recorded), make_record(2)])

    engine = connect(url)
    async with engine.connect() as connection:
        stored = (await connection.execute(texts.select())).all()
    await engine.dispose()

    assert stored == [(make_record(1).id, '{"messages": []}', "hmm", "grüß dich \U0001f600")]
    assert [found async for found in store.rows()] == [make_record(1), make_record(2)]


async def test_scores_are_set_by_id_or_request_id(store: Store) -> None:
    again = replace(make_record(2), id="chatcmpl-again")
    await store.write([make_record(1), make_record(2), again])

    assert await store.set_score("chatcmpl-1", 1.0) == 1
    assert await store.set_score("request-1", 0.25) == 1
    assert await store.set_score("request-2", 1.0) == 2
    assert await store.set_score("chatcmpl-again", 0.0) == 1
    assert await store.set_score("nobody", 1.0) == 0
    assert {found.id: found.score async for found in store.rows()} == {
        "chatcmpl-1": 0.25,
        "chatcmpl-2": None,
        "chatcmpl-again": 0.0,
    }


@pytest.mark.parametrize(
    "wrong", [{"model": None}, {"thinking_tokens": 2**70}, {"model": "\ud800"}]
)
async def test_rows_that_no_database_accepts_are_refused(
    store: Store, wrong: dict[str, Any]
) -> None:
    with pytest.raises(RowsRefused):
        await store.write([make_record(1), make_record(2, **wrong)])

    assert [found async for found in store.rows()] == []


async def test_tables_of_another_version_are_named(url: str) -> None:
    store = Store(connect(url))
    with pytest.raises(LedgerError, match="none, but version 0007"):
        await check_version(store.engine)
    await store.migrate()
    await check_version(store.engine)
    engine = connect(url)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await engine.dispose()

    with pytest.raises(LedgerError, match="9999"):
        await check_version(store.engine)
    with pytest.raises(LedgerError, match="unknown version"):
        await store.migrate()
    await store.aclose()


async def test_reading_does_not_block_writing(store: Store, url: str) -> None:
    await store.write([make_record(number) for number in range(300)])
    reader = Store(connect(url, reads_only=True))
    rows = reader.rows()
    first = await anext(rows)

    await with_timeout(store.write([make_record("late")]))

    assert first.id == make_record(0).id or first in [make_record(number) for number in range(300)]
    assert make_record("late") not in [found async for found in rows]
    await reader.aclose()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ledger.db", "Expected a URL like"),
        ("mysql://host/db", "Unsupported database 'mysql'"),
        ("sqlite+pysqlite:///x.db", "Unsupported database 'sqlite\\+pysqlite'"),
        ("sqlite://", "requires a file"),
        ("sqlite:///:memory:", "requires a file"),
    ],
)
def test_an_invalid_url_is_refused(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_url(text)
    assert sqlite_file(text) is None


def test_urls_get_the_asynchronous_driver(tmp_path: Path) -> None:
    assert read_url("sqlite:////a.db").drivername == "sqlite+aiosqlite"
    assert read_url("postgres://h/d").drivername == "postgresql+asyncpg"
    assert read_url("postgresql+asyncpg://h/d").drivername == "postgresql+asyncpg"
    assert sqlite_file(f"sqlite:///{tmp_path}/a.db") == tmp_path / "a.db"
    assert sqlite_file("postgresql://h/d") is None


def test_a_zero_cost_differs_from_an_unknown_one() -> None:
    assert make_record(1, cost=make_cost("0")).cost != make_record(1).cost
