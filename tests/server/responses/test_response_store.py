"""The store of responses and their events, and what happens to those of a lost gateway."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from proctor.server.accounting.ledger.gateways import GatewayStore
from proctor.server.accounting.ledger.store import Store
from proctor.server.api.generation.background import encoded
from proctor.server.storage.database import connect
from proctor.server.storage.responses import (
    CANCELLED,
    FAILED,
    IN_PROGRESS,
    QUEUED,
    ResponseStore,
    StoredEvent,
    StoredResponse,
)
from proctor.server.storage.tables import response_events
from proctor.server.transport.sse import data_of
from tests.server.accounting.ledger.records import NOON

RESPONSE = StoredResponse("resp_1", "ada", QUEUED, b"[]", b"{}")
EVENTS = [StoredEvent(number, b"event %d" % number) for number in (0, 1, 5)]
LATER = NOON + timedelta(hours=1)


@pytest.fixture
async def response_store(url: str, store: Store) -> AsyncIterator[ResponseStore]:
    engine = connect(url)
    yield ResponseStore(engine, "mine")
    await engine.dispose()


async def found(response_store: ResponseStore) -> StoredResponse | None:
    return await response_store.get("ada", "resp_1", NOON)


async def test_events_are_appended_and_read_from_any_number(response_store: ResponseStore) -> None:
    await response_store.add(RESPONSE, NOON, None)
    assert await response_store.append("resp_1", EVENTS[:2])
    assert await response_store.append("resp_1", EVENTS[2:])

    assert await response_store.events("resp_1", -1) == EVENTS
    assert await response_store.events("resp_1", 1) == EVENTS[2:]
    assert await found(response_store) == replace(RESPONSE, status=IN_PROGRESS)


async def test_events_that_are_appended_twice_are_there_once(response_store: ResponseStore) -> None:
    await response_store.add(RESPONSE, NOON, None)
    for _ in range(2):  # as after a commit whose confirmation was lost
        assert await response_store.append("resp_1", EVENTS)
    for _ in range(2):
        await response_store.end("resp_1", "completed", b"{1}", EVENTS, LATER)

    assert await response_store.events("resp_1", -1) == EVENTS
    assert await found(response_store) == replace(RESPONSE, status="completed", body=b"{1}")


async def test_a_cancelled_response_does_not_go_on(response_store: ResponseStore) -> None:
    await response_store.add(RESPONSE, NOON, None)
    await response_store.cancel("ada", "resp_1")

    assert not await response_store.append("resp_1", EVENTS)
    await response_store.end("resp_1", "completed", b"{1}", EVENTS, LATER)

    assert await response_store.events("resp_1", -1) == []
    assert await found(response_store) == replace(RESPONSE, status=CANCELLED, body=b"{1}")


async def test_a_response_that_has_ended_cannot_be_cancelled(response_store: ResponseStore) -> None:
    await response_store.add(RESPONSE, NOON, None)
    await response_store.end("resp_1", "completed", b"{1}", [], LATER)
    await response_store.cancel("ada", "resp_1")

    assert await found(response_store) == replace(RESPONSE, status="completed", body=b"{1}")


async def test_the_responses_of_a_lost_gateway_have_failed(
    response_store: ResponseStore, store: Store
) -> None:
    leases = GatewayStore(store)
    await response_store.add(RESPONSE, NOON, None)
    cancelled = replace(RESPONSE, id="resp_2")
    await response_store.add(cancelled, NOON, None)
    await response_store.cancel("ada", "resp_2")
    (lost,) = await leases.others("another")

    await leases.take_over(lost)

    assert await found(response_store) == replace(RESPONSE, status=FAILED)
    still = await response_store.get("ada", "resp_2", NOON)
    assert still == replace(cancelled, status=CANCELLED)
    assert not await response_store.append("resp_1", EVENTS), "it was not lost after all"
    assert await leases.others("another") == []


async def test_expired_responses_are_deleted_with_their_events(
    response_store: ResponseStore, store: Store
) -> None:
    await response_store.add(RESPONSE, NOON, None)
    await response_store.end("resp_1", "completed", b"{}", EVENTS, LATER)
    await response_store.add(replace(RESPONSE, id="resp_2"), LATER, LATER + timedelta(hours=1))

    assert await found(response_store) is None
    async with store.engine.connect() as connection:
        query = select(func.count()).select_from(response_events)
        assert await connection.scalar(query) == 0


def delta(number: int, item: str, text: str) -> dict[str, Any]:
    return {"type": "text.delta", "sequence_number": number, "item_id": item, "delta": text}


@given(st.lists(st.tuples(st.sampled_from("ab-"), st.text(max_size=3)), max_size=12))
def test_consecutive_deltas_of_an_item_are_stored_as_one(script: list[tuple[str, str]]) -> None:
    events = [
        {"type": "other", "sequence_number": number} if item == "-" else delta(number, item, text)
        for number, (item, text) in enumerate(script)
    ]

    stored = encoded(events)

    merged = [data for each in stored for data in data_of(each.data)]
    assert [each.number for each in stored] == [each["sequence_number"] for each in merged]
    assert [each.number for each in stored] == sorted({each.number for each in stored})
    for item in "ab":
        assert text_of(merged, item) == text_of(events, item)
    kinds = [(each["type"], each.get("item_id")) for each in merged]
    assert all(one != other or one[0] == "other" for one, other in pairwise(kinds))


def text_of(events: list[dict[str, Any]], item: str) -> str:
    return "".join(each["delta"] for each in events if each.get("item_id") == item)
