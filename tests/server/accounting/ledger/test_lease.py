"""When a gateway is considered lost, and how another one settles its requests."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from proctor.server.accounting.ledger import lease
from proctor.server.accounting.ledger.gateways import GatewayStore, ObservedGateway
from proctor.server.accounting.ledger.lease import LEASE_SECONDS, FailureDetector
from proctor.server.accounting.ledger.process import Process, this_process
from proctor.server.accounting.ledger.records import LedgerRecord
from proctor.server.accounting.ledger.store import Store
from proctor.server.accounting.reservation_store import ReservationStore
from proctor.server.auth.store import KeyStore
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.storage.tables import gateways, holds
from tests.server.accounting.ledger.records import read_records
from tests.server.auth.keys import bearer, make_key
from tests.server.harness import CHAT, Gate, body, client, with_timeout
from tests.waiting import PATIENCE

HERE = this_process()
GONE = replace(HERE, birth=HERE.birth - 1)
ELSEWHERE = Process("another boot pid:[1]", 1, 1)
PRICES = {"prompt": 0, "thinking": 1000, "answer": 1000}
"""A thousandth of a dollar for each token."""


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(autouse=True)
def short_renewals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)


def test_a_remote_gateway_is_lost_when_its_lease_expires(time: Time) -> None:
    detector = FailureDetector(time)
    seen = ObservedGateway("a", 1, ELSEWHERE)

    assert detector.lost([seen]) == []
    time.now = LEASE_SECONDS - 1
    assert detector.lost([seen]) == []
    time.now = LEASE_SECONDS
    assert detector.lost([seen]) == [seen]


def test_a_gateway_that_renews_its_lease_is_not_lost(time: Time) -> None:
    detector = FailureDetector(time)
    for beat in range(10):
        time.now = beat * (LEASE_SECONDS - 1)
        assert detector.lost([ObservedGateway("a", beat, ELSEWHERE)]) == []


def test_time_without_the_database_does_not_count(time: Time) -> None:
    """No gateway can renew its lease while the database is unavailable."""
    detector = FailureDetector(time)
    seen = ObservedGateway("a", 1, ELSEWHERE)
    assert detector.lost([seen]) == []
    time.now = LEASE_SECONDS - 1
    detector.reset()
    time.now = 2 * LEASE_SECONDS
    assert detector.lost([seen]) == []
    assert detector.lost([]) == []
    time.now = 3 * LEASE_SECONDS
    assert detector.lost([seen]) == []


def test_a_local_gateway_is_lost_when_its_process_has_ended(time: Time) -> None:
    detector = FailureDetector(time)

    assert detector.lost([ObservedGateway("a", 1, GONE), ObservedGateway("b", 1, HERE)]) == [
        ObservedGateway("a", 1, GONE)
    ]
    time.now = 1000 * LEASE_SECONDS
    assert detector.lost([ObservedGateway("b", 1, HERE)]) == []


def test_a_gateway_without_a_lease_is_lost_after_the_lease_time(time: Time) -> None:
    detector = FailureDetector(time)
    seen = ObservedGateway("a", None, None)

    assert detector.lost([seen]) == []
    time.now = LEASE_SECONDS
    assert detector.lost([seen]) == [seen]


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def drafts(store: Store) -> list[LedgerRecord]:
    """Return the stored drafts of running requests."""
    async with store.engine.connect() as connection:
        found = await connection.scalars(select(holds.c.draft))
        return [LedgerRecord.from_json(draft) for draft in found if draft is not None]


async def wait_for_draft(store: Store, tokens: int) -> None:
    """Wait until a draft with at least so many completion tokens is stored."""

    async def so_far() -> bool:
        return any(draft.completion_tokens >= tokens for draft in await drafts(store))

    await until(so_far)


async def test_running_requests_are_drafted_as_they_progress(url: str, store: Store) -> None:
    reservations = ReservationStore(store.engine)
    key, token = make_key(per_day="1")
    await KeyStore(store.engine).add(key)
    gate = Gate(9)
    overrides: dict[str, Any] = {
        "ledger": {"url": url},
        "prices": PRICES,
        "auth": {"required": True},
    }
    engine = FakeEngine(Script(("x" * 20,), "y"), before_token=gate)
    async with client(engine, **overrides) as http:
        request = body(n=2, max_tokens=60)
        asking = asyncio.create_task(http.post(CHAT, json=request, headers=bearer(token)))
        await with_timeout(gate.reached.wait())
        await wait_for_draft(store, 9)
        (draft,) = await drafts(store)
        usage = await reservations.usage("team", draft.time)
        gate.opened.set()
        answer = (await asking).json()

    assert (draft.id, draft.key, draft.status, draft.estimated) == (answer["id"], "team", 500, True)
    assert draft.completion_tokens >= 9
    assert draft.thinking_tokens > 0
    assert draft.cost is not None
    assert draft.cost.total * 1000 == draft.completion_tokens
    assert (draft.finish_reason, draft.end_reason) == ("abort", "cancelled")
    assert usage.held_of_day == 120 * 10**6
    (row,) = await read_records(url)
    assert (row.estimated, row.status, row.texts) == (False, 200, None)
    assert row.completion_tokens > draft.completion_tokens


async def test_a_gateway_settles_the_requests_of_a_lost_one(
    url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both run in this process: the exit of one is simulated, and it continues later."""
    key, token = make_key(per_day="0.2")
    reservations = ReservationStore(store.engine)
    await KeyStore(store.engine).add(key)
    overrides: dict[str, Any] = {
        "ledger": {"url": url},
        "prices": PRICES,
        "auth": {"required": True},
    }
    gate = Gate(9)
    headers = bearer(token) | {"idempotency-key": "mine"}
    request = body(max_tokens=120)
    one = FakeEngine(Script(("x" * 20,), "y"), before_token=gate)
    async with (
        client(one, **overrides) as lost,
        client(FakeEngine(Script(("x",), "y")), **overrides) as other,
    ):
        asking = asyncio.create_task(lost.post(CHAT, json=request, headers=headers))
        await with_timeout(gate.reached.wait())
        await wait_for_draft(store, 9)
        refused = await other.post(CHAT, json=request, headers=bearer(token))
        running = await other.post(CHAT, json=request, headers=headers)
        with simulated_exit(monkeypatch) as end:
            await end(store)

            async def settled() -> bool:
                return bool(await read_records(url))

            await until(settled)
            (estimate,) = await read_records(url)
            answer = await other.post(CHAT, json=request, headers=headers)
        gate.opened.set()
        late = await asking

    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "5"
    assert running.status_code == 409
    assert (estimate.estimated, estimate.status) == (True, 500)
    assert estimate.completion_tokens >= 9
    assert answer.status_code == 200, answer.text
    # It had not exited: its final row replaces the estimate, and is charged.
    assert late.status_code == 200
    rows = {row.id: row for row in await read_records(url)}
    assert {row.estimated for row in rows.values()} == {False}
    assert rows[late.json()["id"]].completion_tokens > estimate.completion_tokens
    usage = await reservations.usage("team", estimate.time)
    taken = sum(row.completion_tokens for row in rows.values())
    assert (usage.day, usage.held_of_day) == (taken * 10**6, 0)


@contextlib.contextmanager
def simulated_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[Store], Awaitable[None]]]:
    """Yield a function that makes the gateway with a reservation look as if it had exited."""
    renew, silent, patched = GatewayStore.renew, set[str](), set[str]()
    lock = asyncio.Lock()

    async def renew_unless_silent(leases: GatewayStore, gateway: str, *arguments: Any) -> None:
        async with lock:
            if gateway in silent:
                raise OSError("silent")
            await renew(leases, gateway, *arguments)
            patched.add(gateway)

    async def end(store: Store) -> None:
        async with store.engine.connect() as connection:
            gateway = await connection.scalar(select(holds.c.gateway))
        assert gateway is not None
        # A renewal in flight would undo the exit.
        await until(lambda: asyncio.sleep(0, gateway in patched))
        async with lock, store.engine.begin() as connection:
            silent.add(gateway)
            ending = update(gateways).where(gateways.c.id == gateway)
            await connection.execute(ending.values(birth=gateways.c.birth - 1))

    with monkeypatch.context() as patch:
        patch.setattr(GatewayStore, "renew", renew_unless_silent)
        yield end


async def test_a_database_outage_loses_no_gateway(
    url: str, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    renew, failures, renewed = GatewayStore.renew, [3], asyncio.Event()

    async def fail_at_first(*arguments: Any) -> None:
        if failures[0]:
            failures[0] -= 1
            raise OSError("away")
        await renew(*arguments)
        renewed.set()

    monkeypatch.setattr(GatewayStore, "renew", fail_at_first)
    async with client(FakeEngine(), ledger={"url": url}) as http:
        await with_timeout(renewed.wait())
        assert (await http.post(CHAT, json=body())).status_code == 200

    assert len([r for r in caplog.records if "lease cannot be renewed: away" in r.message]) == 1
    assert len(await read_records(url)) == 1


async def test_retiring_without_the_database_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(*_: Any) -> None:
        raise OSError("away")

    monkeypatch.setattr(GatewayStore, "retire", away)
    async with client(FakeEngine(), ledger={"url": f"sqlite:///{tmp_path / 'ledger.db'}"}) as http:
        assert (await http.post(CHAT, json=body())).status_code == 200

    assert "other gateways will settle what is left: away" in caplog.text
