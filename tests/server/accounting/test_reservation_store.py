"""API keys and reservations, in SQLite and in PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from proctor.server.accounting.ledger.records import DraftRecord, ReservedAmount
from proctor.server.accounting.ledger.store import Store
from proctor.server.accounting.reservation_store import ReservationStore
from proctor.server.auth.api_key import hash_token
from proctor.server.auth.rate_limits import WorstCase
from proctor.server.auth.store import KeyExists, KeyStore
from proctor.server.errors import QuotaExceeded, RateLimited
from proctor.server.storage import database
from proctor.server.storage.database import connect
from proctor.server.storage.tables import holds
from tests.server.accounting.ledger.records import NOON, make_cost, make_record
from tests.server.auth.keys import make_key

SECOND = timedelta(seconds=1)
CENT = 10**7
"""In billionths of the currency."""


@pytest.fixture
def keys(store: Store) -> KeyStore:
    return KeyStore(store.engine)


@pytest.fixture
async def reservations(url: str, store: Store) -> AsyncIterator[ReservationStore]:
    engine = connect(url)
    yield ReservationStore(engine)
    await engine.dispose()


def took(name: str, tokens: int, nanos: int) -> DraftRecord:
    """Return the draft of a request that has ended."""
    return DraftRecord(make_record(name, estimated=True), ReservedAmount(tokens, nanos))


async def count_holds(url: str) -> int:
    engine = connect(url)
    async with engine.connect() as connection:
        found: int = await connection.scalar(select(func.count()).select_from(holds)) or 0
    await engine.dispose()
    return found


async def test_a_key_is_stored_and_revoked(keys: KeyStore) -> None:
    key, token = make_key(per_day="20", models=["a"], max_thinking_tokens=7)
    await keys.add(key)

    kept = await keys.find(hash_token(token))
    assert kept is not None
    assert kept.key == key
    assert kept.revoked is None
    assert token not in repr(kept)
    assert await keys.revoke("team")
    assert not await keys.revoke("team")
    (kept,) = await keys.all()
    assert kept.revoked is not None
    with pytest.raises(KeyExists):
        await keys.add(make_key()[0])
    assert await keys.find(hash_token("another")) is None


async def test_running_requests_count_with_their_worst_case(reservations: ReservationStore) -> None:
    key, _ = make_key(tokens_per_minute=100)
    await reservations.reserve("a", key, WorstCase(70, 0), NOON, "gateway")

    with pytest.raises(RateLimited, match="30 of its API key's 100 tokens per minute"):
        await reservations.reserve("b", key, WorstCase(40, 0), NOON, "gateway")
    await reservations.reserve("c", key, WorstCase(30, 0), NOON, "gateway")
    await reservations.release("a")
    headers = await reservations.reserve("d", key, WorstCase(10, 0), NOON, "gateway")

    assert headers["x-ratelimit-remaining-tokens"] == "60"


async def test_a_row_settles_its_reservation_once(
    reservations: ReservationStore, store: Store, url: str
) -> None:
    key, _ = make_key(requests_per_minute=9, per_day=1, per_month=2)
    for name in ("a", "b"):
        await reservations.reserve(
            f"chatcmpl-{name}", key, WorstCase(100, 30 * CENT), NOON, "gateway"
        )
    held = await reservations.usage("team", NOON)
    assert (held.requests, held.tokens, held.day, held.month) == (2, 200, 60 * CENT, 60 * CENT)

    ended = make_record("a", key="team", cost=make_cost("0.1"))
    for _ in range(2):  # as after a commit whose confirmation was lost
        await store.write([ended, make_record("other", cost=make_cost("5"))])

    usage = await reservations.usage("team", NOON)
    assert (usage.requests, usage.tokens, usage.day, usage.month) == (2, 152, 40 * CENT, 40 * CENT)
    await store.write(
        [
            make_record("b", key="team", cost=None),
            make_record("c", key="team", cost=make_cost("0.2")),
        ]
    )
    usage = await reservations.usage("team", NOON)
    assert (usage.requests, usage.tokens, usage.day) == (3, 156, 30 * CENT)
    assert await count_holds(url) == 0
    tomorrow = await reservations.usage("team", NOON + timedelta(days=1))
    assert (tomorrow.requests, tomorrow.tokens, tomorrow.day, tomorrow.month) == (0, 0, 0, 0)


async def test_a_settled_reservation_counts_like_its_row(
    reservations: ReservationStore, store: Store
) -> None:
    key, _ = make_key(requests_per_minute=9, per_day=1, per_month=2)
    for name in ("a", "b"):
        await reservations.reserve(
            f"chatcmpl-{name}", key, WorstCase(100, 30 * CENT), NOON, "gateway"
        )

    await reservations.settle([took("a", 52, 10 * CENT), took("unknown", 1, 1)])
    settled = await reservations.usage("team", NOON)
    await store.write([make_record("a", key="team", cost=make_cost("0.1"))])
    await reservations.settle([took("a", 52, 10 * CENT)])  # too late
    written = await reservations.usage("team", NOON)

    assert settled == written
    assert (settled.requests, settled.tokens, settled.day) == (2, 152, 40 * CENT)


async def test_tokens_settled_after_a_minute_are_not_counted(
    reservations: ReservationStore,
) -> None:
    key, _ = make_key(tokens_per_minute=200)
    now = NOON + timedelta(seconds=61)
    for name in ("chatcmpl-ended", "chatcmpl-running"):
        await reservations.reserve(name, key, WorstCase(100, 0), NOON, "gateway")
    await reservations.settle([took("ended", 52, 0)])

    usage = await reservations.usage("team", now)

    assert (usage.requests, usage.tokens) == (0, 100)


async def test_a_request_counts_for_the_day_on_which_it_arrived(
    reservations: ReservationStore, store: Store
) -> None:
    key, _ = make_key(per_day=1, per_month=2)
    before = NOON + timedelta(hours=12) - SECOND
    after = before + 2 * SECOND
    await reservations.reserve("chatcmpl-a", key, WorstCase(100, 30 * CENT), before, "gateway")

    runs = [await reservations.usage("team", now) for now in (before, after)]
    await reservations.settle([took("a", 52, 10 * CENT)])
    ended = [await reservations.usage("team", now) for now in (before, after)]
    await store.write([make_record("a", key="team", time=before, cost=make_cost("0.1"))])
    written = [await reservations.usage("team", now) for now in (before, after)]

    assert [(usage.day, usage.month) for usage in runs] == [(30 * CENT, 30 * CENT), (0, 0)]
    assert ended == written


async def test_concurrent_reservations_wait_for_the_database(
    store: Store, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None fails because others are using the database."""
    if url.startswith("sqlite"):  # PostgreSQL needs the time to connect
        monkeypatch.setattr(database, "CONNECT_SECONDS", 0.01)
    engine = connect(url)
    reservations = ReservationStore(engine)
    key, _ = make_key(requests_per_minute=1000)
    holding = (
        reservations.reserve(str(number), key, WorstCase(9, 0), NOON, "gateway")
        for number in range(100)
    )
    await asyncio.gather(*holding)
    usage = await reservations.usage("team", NOON)
    await engine.dispose()

    assert usage.requests == 100


async def test_usage_is_reset_with_the_day_and_the_month(
    reservations: ReservationStore, store: Store
) -> None:
    await store.write([make_record("a", key="team", cost=make_cost("0.1"))])

    last = await reservations.usage("team", NOON + timedelta(hours=11))
    first = await reservations.usage("team", NOON + timedelta(hours=13))

    assert (last.day, last.month) == (10 * CENT, 10 * CENT)
    assert (first.day, first.month) == (0, 0)


async def test_a_reservation_lasts_until_its_row_is_written(
    reservations: ReservationStore, store: Store
) -> None:
    """However long the database was unavailable in between."""
    key, _ = make_key(per_day=1)
    late = NOON + timedelta(hours=11)
    await reservations.reserve("chatcmpl-a", key, WorstCase(1, 100 * CENT), NOON, "gateway")

    with pytest.raises(RateLimited, match="are reserved for running requests") as refused:
        await reservations.reserve("b", key, WorstCase(1, CENT), late, "gateway")
    assert not isinstance(refused.value, QuotaExceeded)
    assert refused.value.headers["retry-after"] == "5"
    await store.write([make_record("a", key="team", cost=make_cost("0.99"))])
    await reservations.reserve("b", key, WorstCase(1, CENT), late, "gateway")


async def test_concurrent_requests_cannot_overspend(url: str, store: Store) -> None:
    key, _ = make_key(per_day=1, requests_per_minute=1000)
    engines = [connect(url) for _ in range(4)]
    gateways = [ReservationStore(engine) for engine in engines]

    async def run(number: int) -> bool:
        """Reserve, and write the row as another gateway would; return whether it was admitted."""
        gateway = gateways[number % len(gateways)]
        try:
            await gateway.reserve(
                f"chatcmpl-{number}", key, WorstCase(9, 7 * CENT), NOON, "gateway"
            )
        except RateLimited:
            return False
        await asyncio.sleep(0)
        await store.write([make_record(number, key="team", cost=make_cost("0.05"))])
        return True

    ran = sum(await asyncio.gather(*(run(number) for number in range(60))))
    usage = await gateways[0].usage("team", NOON)
    for engine in engines:
        await engine.dispose()

    assert usage.day == ran * 5 * CENT <= 100 * CENT
    assert 14 <= ran <= 20
    assert await count_holds(url) == 0
