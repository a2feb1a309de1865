"""The requests of a lost gateway are settled once; one wrongly thought lost can continue."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select

from proctor.server.accounting.ledger.gateways import GatewayStore, ObservedGateway
from proctor.server.accounting.ledger.process import this_process
from proctor.server.accounting.ledger.records import DraftRecord, LedgerRecord, ReservedAmount
from proctor.server.accounting.ledger.store import Store
from proctor.server.accounting.reservation_store import ReservationStore
from proctor.server.auth.rate_limits import WorstCase
from proctor.server.storage.database import connect
from proctor.server.storage.idempotency import CachedResponse, Claim, IdempotencyStore
from proctor.server.storage.tables import gateways, holds, replays
from tests.server.accounting.ledger.records import NOON, make_cost, make_record, read_records
from tests.server.auth.keys import make_key

CENT = 10**7
"""In billionths of the currency."""

PROCESS = this_process()
LOST = ObservedGateway("lost", 2, PROCESS)


@pytest.fixture
async def reservations(url: str, store: Store) -> AsyncIterator[ReservationStore]:
    engine = connect(url)
    yield ReservationStore(engine)
    await engine.dispose()


@pytest.fixture
def leases(store: Store) -> GatewayStore:
    return GatewayStore(store)


def draft(name: str, spent: str, held: int = 0, **fields: Any) -> DraftRecord:
    values: dict[str, Any] = {"key": "team", "status": 500, "estimated": True, **fields}
    return DraftRecord(
        make_record(name, cost=make_cost(spent), **values), ReservedAmount(held, held * CENT)
    )


async def count_leftovers(url: str) -> dict[str, int]:
    """Count the rows of the tables that are empty when no request runs."""
    engine = connect(url)
    counts = {}
    async with engine.connect() as connection:
        for table in (gateways, holds, replays):
            counted = await connection.execute(select(func.count()).select_from(table))
            counts[table.name] = counted.scalar_one()
    await engine.dispose()
    return counts


async def test_running_requests_are_charged_by_their_last_draft(
    reservations: ReservationStore, leases: GatewayStore, url: str
) -> None:
    key, _ = make_key(per_day=1)
    await reservations.reserve("chatcmpl-a", key, WorstCase(100, 90 * CENT), NOON, "lost")
    await leases.renew("lost", PROCESS, 1, [draft("a", "0.01")])
    await leases.renew("lost", PROCESS, 2, [draft("a", "0.30"), draft("b", "0.05", key=None)])
    assert (await reservations.usage("team", NOON)).day == 90 * CENT
    assert await leases.others("this") == [LOST]

    assert await leases.take_over(LOST) == 2

    rows = {each.id: each for each in await read_records(url)}
    assert [each.estimated for each in rows.values()] == [True, True]
    assert rows["chatcmpl-a"].cost == make_cost("0.30")
    usage = await reservations.usage("team", NOON)
    assert (usage.day, usage.held_of_day) == (30 * CENT, 0)
    assert await count_leftovers(url) == {"gateways": 0, "holds": 0, "replays": 0}
    assert await leases.others("this") == []


async def test_only_one_of_several_gateways_settles_a_lost_one(
    reservations: ReservationStore, leases: GatewayStore, url: str
) -> None:
    key, _ = make_key(per_day=1)
    await reservations.reserve("chatcmpl-a", key, WorstCase(100, 90 * CENT), NOON, "lost")
    await leases.renew("lost", PROCESS, 2, [draft("a", "0.30")])
    stores = [Store(connect(url)) for _ in range(4)]

    settled = await asyncio.gather(*(GatewayStore(each).take_over(LOST) for each in stores))
    for each in stores:
        await each.aclose()

    assert sorted(settled) == [0, 0, 0, 1]
    assert (await reservations.usage("team", NOON)).day == 30 * CENT


async def test_a_gateway_that_has_renewed_since_is_not_taken_over(
    reservations: ReservationStore, leases: GatewayStore, url: str
) -> None:
    key, _ = make_key(per_day=1)
    await reservations.reserve("chatcmpl-a", key, WorstCase(100, 90 * CENT), NOON, "lost")
    await leases.renew("lost", PROCESS, 3, [draft("a", "0.30")])

    assert await leases.take_over(LOST) == 0

    assert await read_records(url) == []
    assert (await reservations.usage("team", NOON)).day == 90 * CENT


async def test_the_final_row_replaces_the_estimate(
    reservations: ReservationStore, leases: GatewayStore, store: Store, url: str
) -> None:
    key, _ = make_key(per_day=1)
    await reservations.reserve("chatcmpl-a", key, WorstCase(100, 90 * CENT), NOON, "lost")
    await leases.renew("lost", PROCESS, 2, [draft("a", "0.30")])
    await leases.take_over(LOST)
    await store.set_score("chatcmpl-a", 1.0)
    true = make_record("a", key="team", cost=make_cost("0.42"), completion_tokens=77)

    for _ in range(2):  # as after a commit whose confirmation was lost
        await store.write([true, make_record("other", key="team", cost=make_cost("0.01"))])

    (kept,) = [each for each in await read_records(url) if each.id == "chatcmpl-a"]
    assert kept == replace(true, score=1.0)
    assert (await reservations.usage("team", NOON)).day == 43 * CENT


async def test_a_final_row_is_not_replaced_by_an_estimate(
    reservations: ReservationStore, leases: GatewayStore, store: Store, url: str
) -> None:
    """The gateway was killed between its row and its next renewal, or renewed late."""
    await leases.renew("lost", PROCESS, 2, [draft("a", "0.30")])
    await store.write([make_record("a", key="team", cost=make_cost("0.42"))])
    await leases.renew("lost", PROCESS, 3, [])

    await leases.take_over(ObservedGateway("lost", 3, PROCESS))

    assert [each.cost for each in await read_records(url)] == [make_cost("0.42")]
    assert (await reservations.usage("team", NOON)).day == 42 * CENT


async def test_a_gateway_wrongly_thought_lost_reserves_again(
    reservations: ReservationStore, leases: GatewayStore, store: Store
) -> None:
    key, _ = make_key(per_day=1)
    await reservations.reserve("chatcmpl-a", key, WorstCase(100, 90 * CENT), NOON, "lost")
    await leases.renew("lost", PROCESS, 2, [draft("a", "0.30", 90)])
    await leases.take_over(LOST)

    await leases.renew("lost", PROCESS, 3, [draft("a", "0.40", 90)])
    again = await reservations.usage("team", NOON)
    await store.write([make_record("a", key="team", cost=make_cost("0.42"))])
    usage = await reservations.usage("team", NOON)

    assert again.held_of_day == 90 * CENT  # in addition to the estimate, to be on the safe side
    assert (usage.day, usage.held_of_day) == (42 * CENT, 0)


async def test_a_renewal_does_not_change_what_was_settled(
    reservations: ReservationStore, leases: GatewayStore, url: str
) -> None:
    """A settlement may be concurrent with the renewal of an older draft."""
    key, _ = make_key(per_day=1)
    await reservations.reserve("chatcmpl-a", key, WorstCase(100, 90 * CENT), NOON, "lost")
    ended = draft("a", "0.10", status=200, completion_tokens=77)
    await reservations.settle([replace(ended, reserved=ReservedAmount(52, 10 * CENT))])

    await leases.renew("lost", PROCESS, 2, [draft("a", "0.05", 90)])
    assert (await reservations.usage("team", NOON)).day == 10 * CENT
    await leases.take_over(LOST)

    assert await read_records(url) == [ended.record]
    assert (await reservations.usage("team", NOON)).day == 10 * CENT


async def test_reservations_and_claims_without_a_lease_are_found(
    reservations: ReservationStore, leases: GatewayStore, url: str
) -> None:
    key, _ = make_key(per_day=1)
    engine = connect(url)
    names = IdempotencyStore(engine, "claiming")
    await reservations.reserve("chatcmpl-a", key, WorstCase(100, 90 * CENT), NOON, "holding")
    await names.claim(Claim("team", "mine", "0" * 64), NOON)
    await leases.renew("this", PROCESS, 1, [])

    seen = await leases.others("this")
    for each in seen:
        assert await leases.take_over(each) == 0
    free = await names.claim(Claim("team", "mine", "1" * 64), NOON)
    await engine.dispose()

    assert sorted(seen) == [
        ObservedGateway("claiming", None, None),
        ObservedGateway("holding", None, None),
    ]
    assert free is None
    assert (await reservations.usage("team", NOON)).day == 0


async def test_idempotency_keys_of_completed_responses_are_kept(
    leases: GatewayStore, url: str
) -> None:
    engine = connect(url)
    names, others = IdempotencyStore(engine, "lost"), IdempotencyStore(engine, "other")
    answered, running = (Claim("team", name, "0" * 64) for name in ("answered", "running"))
    for claim in (answered, running):
        assert await names.claim(claim, NOON) is None
    kept = CachedResponse("0" * 64, "application/json", "low", b"{}")
    await names.keep(answered, kept, NOON + timedelta(hours=3))
    await leases.renew("lost", PROCESS, 2, [])

    late = NOON + timedelta(hours=2)
    assert await others.claim(running, late) is not None  # as long as its gateway is alive
    await leases.take_over(LOST)

    assert await others.claim(answered, NOON) == kept
    assert await others.claim(running, NOON) is None
    assert await others.claim(answered, NOON + timedelta(hours=4)) is None
    await engine.dispose()


async def test_a_gateway_wrongly_thought_lost_does_not_release_anothers_idempotency_key(
    leases: GatewayStore, url: str
) -> None:
    engine = connect(url)
    names, others = IdempotencyStore(engine, "lost"), IdempotencyStore(engine, "other")
    claim, later = Claim("team", "mine", "0" * 64), NOON + timedelta(hours=3)
    kept = CachedResponse("0" * 64, "application/json", "low", b"true")
    await names.claim(claim, NOON)
    await leases.take_over(ObservedGateway("lost", None, None))
    assert await others.claim(claim, NOON) is None

    await names.keep(claim, replace(kept, body=b"false"), later)
    await names.give_up(claim)
    running = await others.claim(claim, NOON)
    await others.keep(claim, kept, later)
    await names.give_up(claim)

    assert running is not None
    assert running.media_type is None
    assert await names.claim(claim, NOON) == kept
    await engine.dispose()


async def test_a_gateway_that_exits_leaves_nothing(
    reservations: ReservationStore, leases: GatewayStore, url: str
) -> None:
    key, _ = make_key(per_day=1)
    for gateway in ("this", "other"):
        await reservations.reserve(
            f"chatcmpl-{gateway}", key, WorstCase(9, 40 * CENT), NOON, gateway
        )
        await leases.renew(gateway, PROCESS, 1, [draft(gateway, "0.02")])

    await leases.retire("this")

    assert [each.id for each in await read_records(url)] == ["chatcmpl-this"]
    assert (await reservations.usage("team", NOON)).day == 42 * CENT
    assert await count_leftovers(url) == {"gateways": 1, "holds": 1, "replays": 0}


async def test_a_refused_draft_does_not_affect_the_others(
    reservations: ReservationStore, leases: GatewayStore, url: str
) -> None:
    huge = draft("huge", "0.30", cached_tokens=2**70)
    await leases.renew("lost", PROCESS, 2, [huge, draft("a", "0.30")])

    await leases.take_over(LOST)

    kept = {each.id for each in await read_records(url)}
    assert "chatcmpl-a" in kept
    assert (await count_leftovers(url))["holds"] == 0


async def test_a_draft_is_settled_unchanged(leases: GatewayStore, url: str) -> None:
    record: LedgerRecord = replace(
        draft("a", "0.000000000001").record,
        key='team \u2028 \\ "',
        max_tokens=None,
        cost=replace(make_cost("0.1"), prompt=Decimal("1e-12")),
    )
    await leases.renew("lost", PROCESS, 2, [DraftRecord(record, ReservedAmount(0, 0))])
    await leases.take_over(LOST)

    assert await read_records(url) == [record]
