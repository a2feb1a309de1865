"""The secrets in the database: made once, rotated, shared by gateways."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor.server.accounting.ledger.store import Store
from proctor.server.errors import Unavailable
from proctor.server.storage.database import connect
from proctor.server.turns.keyring import RecordKeys, Secret
from proctor.server.turns.secret_source import (
    REFRESH_SECONDS,
    RETRY_SECONDS,
    FixedSecrets,
    StoredSecrets,
    open_secrets,
)
from proctor.server.turns.store import SecretStore

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class CountingStore(SecretStore):
    """A store that counts how often it is read, and can fail."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.reads = 0
        self.fails = False

    async def get_or_create(self, now: datetime) -> list[Secret]:
        self.reads += 1
        if self.fails:
            raise ConnectionError("away")
        return await super().get_or_create(now)


@pytest.fixture
async def stored(url: str, store: Store) -> AsyncIterator[CountingStore]:
    engine = connect(url)
    yield CountingStore(engine)
    await engine.dispose()


async def test_gateways_that_start_together_share_one_secret(url: str, store: Store) -> None:
    engines = [connect(url) for _ in range(6)]

    found = await asyncio.gather(*(SecretStore(each).get_or_create(NOW) for each in engines))
    sources = [StoredSecrets(SecretStore(each)) for each in engines]
    keyrings = await asyncio.gather(*(source.keyring() for source in sources))

    assert {len(each) for each in found} == {1}
    assert len({each[0].value for each in found}) == 1
    assert len({keyring.issuing for keyring in keyrings}) == 1
    await asyncio.gather(*(engine.dispose() for engine in engines))


async def test_a_rotated_secret_is_valid_until_it_expires(stored: SecretStore) -> None:
    (first,) = await stored.get_or_create(NOW)
    second = await stored.rotate(NOW + DAY, 7 * DAY)

    async def values(now: datetime) -> list[bytes]:
        return [secret.value for secret in await stored.get_or_create(now)]

    assert await values(NOW + 2 * DAY) == [second.value, first.value]
    assert await values(NOW + 8 * DAY) == [second.value]
    assert first.value != second.value
    third = await stored.rotate(NOW + 9 * DAY, 0 * DAY)
    assert await values(NOW + 9 * DAY) == [third.value]


async def test_a_disclosed_secret_is_invalid_at_once(stored: SecretStore) -> None:
    await stored.get_or_create(NOW - 3 * DAY)
    await stored.rotate(NOW - 2 * DAY, 7 * DAY)

    newest = await stored.rotate(NOW, 0 * DAY)

    assert [each.value for each in await stored.get_or_create(NOW)] == [newest.value]


async def test_rotations_at_the_same_time_all_count(url: str, stored: SecretStore) -> None:
    engines = [connect(url) for _ in range(4)]

    made = await asyncio.gather(*(SecretStore(each).rotate(NOW, DAY) for each in engines))

    found = await stored.get_or_create(NOW)
    assert {each.value for each in found} == {each.value for each in made}
    assert sum(each.expires is None for each in found) == 1
    await asyncio.gather(*(engine.dispose() for engine in engines))


async def test_a_rotation_reaches_other_gateways_without_a_restart(stored: CountingStore) -> None:
    clock = Clock()
    source = StoredSecrets(stored, clock)
    await stored.get_or_create(NOW - DAY)
    before = await source.keyring()
    newest = RecordKeys.of((await stored.rotate(NOW - DAY / 2, DAY)).value)

    assert (await source.keyring()).issuing == before.issuing
    clock.time += REFRESH_SECONDS
    after = await source.keyring()
    assert after.issuing == newest
    assert before.issuing.id in after.by_id


async def test_a_record_of_an_unknown_secret_makes_a_gateway_read_it(stored: CountingStore) -> None:
    clock = Clock()
    source = StoredSecrets(stored, clock)
    before = await source.keyring()
    newest = await stored.rotate(datetime.now(UTC), DAY)
    clock.time += RETRY_SECONDS

    keyring = await source.keyring([newest.id])

    assert newest.id in keyring.by_id
    assert keyring.issuing == before.issuing, "others may not know the new one yet"


async def test_unknown_secrets_cannot_make_a_gateway_read_all_the_time(
    stored: CountingStore,
) -> None:
    clock = Clock()
    source = StoredSecrets(stored, clock)
    unknown = [bytes([number]) * 8 for number in range(50)]

    await asyncio.gather(*(source.keyring([each]) for each in unknown))
    assert stored.reads == 1
    clock.time += RETRY_SECONDS
    await asyncio.gather(*(source.keyring([each]) for each in unknown))
    assert stored.reads == 2
    await asyncio.gather(*(source.keyring() for _ in unknown))
    assert stored.reads == 2


async def test_an_outage_is_survived_once_the_secrets_are_known(
    stored: CountingStore, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    source = StoredSecrets(stored, clock)
    stored.fails = True
    for _ in range(3):
        with pytest.raises(Unavailable, match="Try again later"):
            await source.keyring()
    assert stored.reads == 1, "requests do not wait for the database one after the other"

    stored.fails = False
    clock.time += RETRY_SECONDS
    known = await source.keyring()
    stored.fails = True
    clock.time += REFRESH_SECONDS
    assert await source.keyring([b"unknown!"]) is known
    levels = {record.levelno for record in caplog.records if "secrets" in record.message}
    assert levels == {logging.WARNING}


async def test_where_secrets_come_from(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'ledger.db'}")
    configured = [SecretStr("a" * 32), SecretStr("b" * 32)]

    fixed = await open_secrets(configured, engine).keyring()

    assert fixed.issuing == RecordKeys.of(b"a" * 32)
    assert len(fixed.by_id) == 2
    assert isinstance(open_secrets([], engine), StoredSecrets)
    processes = [open_secrets([], None) for _ in range(2)]
    assert all(isinstance(each, FixedSecrets) for each in processes)
    assert len({(await each.keyring()).issuing.id for each in processes}) == 2
    await engine.dispose()
