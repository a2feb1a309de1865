"""The usage of sessions in SQLite and in PostgreSQL, from reservations to rows."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from proctor.server.accounting.ledger.gateways import GatewayStore, ObservedGateway
from proctor.server.accounting.ledger.process import this_process
from proctor.server.accounting.ledger.records import DraftRecord, LedgerRecord, ReservedAmount
from proctor.server.accounting.ledger.store import Store
from proctor.server.accounting.reservation_store import ReservationStore, SessionClaim
from proctor.server.auth.rate_limits import WorstCase
from proctor.server.config.section import UsageLimits
from proctor.server.config.sessions import SessionLimits
from proctor.server.sessions.limits import Session, SessionUsage
from proctor.server.sessions.report import SessionReader, SessionReport
from proctor.server.sessions.store import AllowanceChanged
from proctor.server.storage.database import connect
from tests.server.accounting.ledger.records import NOON, make_cost, make_record

CENT = 10**7
"""In billionths of the currency."""

PROCESS = this_process()
SECOND = timedelta(seconds=1)


@pytest.fixture
async def reservations(url: str, store: Store) -> AsyncIterator[ReservationStore]:
    engine = connect(url)
    yield ReservationStore(engine)
    await engine.dispose()


@pytest.fixture
def reader(store: Store) -> SessionReader:
    return SessionReader(store.engine)


def claim(tier: str = "low", **limits: Any) -> SessionClaim:
    return SessionClaim(Session("", "s", True, SessionLimits(**limits)), tier)


def record(name: object, **fields: Any) -> LedgerRecord:
    return make_record(name, session="s", cost=make_cost("0.1"), **fields)


async def read(reader: SessionReader) -> SessionReport:
    report = await reader.report("", "s")
    assert report is not None
    return report


async def test_a_request_counts_once_from_its_reservation_to_its_row(
    reservations: ReservationStore, store: Store, reader: SessionReader
) -> None:
    assert await reader.report("", "s") is None
    limited = claim(max_thinking_tokens=100)
    want = WorstCase(200, 90 * CENT, 70)
    await reservations.reserve("chatcmpl-a", None, want, NOON, "gateway", limited)
    reserved = await read(reader)
    draft = DraftRecord(record("a", estimated=True), ReservedAmount(52, 10 * CENT, 30))
    await reservations.settle([draft])
    settled = await read(reader)
    for _ in range(2):  # as after a commit whose confirmation was lost
        await store.write([record("a")])
    written = await read(reader)

    used = SessionUsage(1, 30, 52, 10 * CENT)
    assert (reserved.used, reserved.reserved) == (
        SessionUsage(),
        SessionUsage(1, 70, 200, 90 * CENT),
    )
    assert (settled.used, settled.reserved) == (used, SessionUsage())
    assert (written.used, written.reserved) == (used, SessionUsage())
    assert written.state.created == written.last == NOON
    (tier,) = written.tiers
    assert (tier.tier, tier.prompt_tokens, tier.answer_tokens) == ("low", 10, 10)
    assert (tier.nanos, tier.thinking_nanos, tier.answer_nanos) == (10 * CENT, 10 * CENT, 0)


async def test_a_reservation_that_does_not_fit_changes_nothing(
    reservations: ReservationStore, reader: SessionReader
) -> None:
    limited = claim(max_thinking_tokens=100)
    await reservations.reserve("a", None, WorstCase(9, 0, 60), NOON, "gateway", limited)
    with pytest.raises(AllowanceChanged):
        await reservations.reserve("b", None, WorstCase(9, 0, 41), NOON, "gateway", limited)
    lower = claim(max_thinking_tokens=90)
    with pytest.raises(AllowanceChanged):
        await reservations.reserve("c", None, WorstCase(9, 0, 31), NOON, "gateway", lower)
    before = await read(reader)
    await reservations.reserve("d", None, WorstCase(9, 0, 30), NOON + SECOND, "gateway", lower)
    after = await read(reader)

    assert (before.reserved.requests, before.state.limits.max_thinking_tokens) == (1, 100)
    assert (after.reserved.thinking_tokens, after.state.limits.max_thinking_tokens) == (90, 90)
    assert after.state.created == NOON
    await reservations.release("a")
    assert (await read(reader)).reserved.thinking_tokens == 30


async def test_the_limits_of_a_tier_count_its_own_requests(
    reservations: ReservationStore, store: Store
) -> None:
    tiers = {"high": UsageLimits(max_requests=1, max_thinking_tokens=50)}
    session = Session("", "s", tiers=tiers)
    await store.write([record("a", tier="low"), record("b", tier="high")])

    low, high = (SessionClaim(session, tier) for tier in ("low", "high"))
    await reservations.reserve("c", None, WorstCase(9, 0, 500), NOON, "gateway", low)
    with pytest.raises(AllowanceChanged):
        await reservations.reserve("d", None, WorstCase(9, 0, 0), NOON, "gateway", high)


async def test_a_lost_gateway_is_settled_and_corrected_if_it_returns(
    reservations: ReservationStore, store: Store, reader: SessionReader
) -> None:
    leases = GatewayStore(store)
    limited = claim(max_thinking_tokens=100)
    await reservations.reserve("chatcmpl-a", None, WorstCase(200, 0, 100), NOON, "lost", limited)
    draft = record("a", status=500, estimated=True, thinking_tokens=20)
    await leases.renew("lost", PROCESS, 1, [DraftRecord(draft, ReservedAmount(200, 0, 100))])
    assert await leases.take_over(ObservedGateway("lost", 1, PROCESS)) == 1
    lost = await read(reader)

    # It was only slow: its next renewal restores the reservation, and its row is exact.
    running = replace(draft, thinking_tokens=25)
    await leases.renew("lost", PROCESS, 2, [DraftRecord(running, ReservedAmount(200, 0, 100))])
    back = await read(reader)
    await store.write([record("a", thinking_tokens=28, time=NOON + SECOND)])
    final = await read(reader)

    assert (lost.used.thinking_tokens, lost.reserved) == (20, SessionUsage())
    assert back.reserved == SessionUsage(1, 100, 200, 0)
    assert (final.used.requests, final.used.thinking_tokens) == (1, 28)
    assert final.reserved == SessionUsage()


async def test_concurrent_reservations_fill_a_limit_exactly(url: str, store: Store) -> None:
    engines = [connect(url) for _ in range(3)]
    gateways = [ReservationStore(engine) for engine in engines]
    limited = claim(max_thinking_tokens=100)

    async def reserve(number: int) -> bool:
        gateway = gateways[number % len(gateways)]
        try:
            await gateway.reserve(f"{number}", None, WorstCase(9, 0, 7), NOON, "gateway", limited)
        except AllowanceChanged:
            return False
        return True

    admitted = sum(await asyncio.gather(*map(reserve, range(30))))
    report = await SessionReader(engines[0]).report("", "s")
    for engine in engines:
        await engine.dispose()

    assert admitted == 100 // 7
    assert report is not None
    assert report.reserved.thinking_tokens == 98


async def test_recent_sessions_come_first(store: Store, reader: SessionReader) -> None:
    await store.write(
        [
            make_record("a", session="old", key="one"),
            make_record("b", session="new", key="two", time=NOON + SECOND),
            make_record("c", session="old", key="one", tier="high", time=NOON + 2 * SECOND),
            make_record("d"),
        ]
    )

    everything = await reader.recent(9)
    first = await reader.recent(1)
    of_key = await reader.recent(9, "two")

    assert [(each.key, each.id) for each in everything] == [("one", "old"), ("two", "new")]
    assert [each.id for each in first] == ["old"]
    assert [each.id for each in of_key] == ["new"]
    assert everything[0].last == NOON + 2 * SECOND
