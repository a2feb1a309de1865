"""`Idempotency-Key`: a repeated request gets the cached response."""

import asyncio
import contextlib
import gzip
from typing import Any

import httpx
import orjson
import pytest

from proctor.server.accounting.ledger.store import Store
from proctor.server.api.generation import idempotency
from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.errors import EngineUnavailable
from proctor.server.storage.idempotency import Claim, IdempotencyStore
from tests.server.accounting.ledger.records import read_records
from tests.server.auth.keys import bearer, configured_key
from tests.server.harness import CHAT, Gate, body, client, running_server, with_timeout

pytestmark = pytest.mark.slow

ANSWER = Script(("abc",), "de")


def named(name: str = "mine", **more: str) -> dict[str, str]:
    return {"idempotency-key": name, **more}


@pytest.fixture
async def ledger(url: str, store: Store) -> dict[str, Any]:
    return {"ledger": {"url": url}}


BODIES = {
    CHAT: body(),
    "/v1/completions": {"model": "fake", "prompt": "x"},
    "/v1/responses": {"model": "fake", "input": "x"},
    "/v1/messages": {
        "model": "fake",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "x"}],
    },
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_repeated_request_gets_the_same_response(
    path: str, stream: bool, ledger: dict[str, Any]
) -> None:
    request = {**BODIES[path], "stream": stream}
    engine = FakeEngine(ANSWER)
    async with client(engine, **ledger) as http:
        first = await http.post(path, json=request, headers=named())
        again = await http.post(path, json=request, headers=named())
        other = await http.post(path, json=request, headers=named("other"))

    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-budget-tier"] == first.headers["x-budget-tier"]
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert other.content != first.content
    assert len(engine.jobs) == 2
    assert len(await read_records(ledger["ledger"]["url"])) == 2


async def test_compression_does_not_change_the_request(ledger: dict[str, Any]) -> None:
    plain = orjson.dumps(body())
    async with client(FakeEngine(ANSWER), **ledger) as http:
        first = await http.post(CHAT, content=plain, headers=named())
        headers = named() | {"content-encoding": "gzip"}
        again = await http.post(CHAT, content=gzip.compress(plain), headers=headers)

    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"


async def test_a_different_request_with_the_same_idempotency_key_is_refused(
    ledger: dict[str, Any],
) -> None:
    async with client(FakeEngine(ANSWER), **ledger) as http:
        await http.post(CHAT, json=body(), headers=named())
        refused = await http.post(CHAT, json=body(seed=1), headers=named())

    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "idempotency-key"


async def test_idempotency_keys_are_scoped_to_the_api_key(ledger: dict[str, Any]) -> None:
    (one, token), (two, other) = configured_key("one"), configured_key("two")
    engine = FakeEngine(ANSWER)
    async with client(engine, keys=[one, two], **ledger) as http:
        answers = [
            await http.post(CHAT, json=body(), headers=named(**bearer(shown)))
            for shown in (token, other)
        ]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert len(engine.jobs) == 2


async def test_a_request_that_is_still_running_gets_a_409(ledger: dict[str, Any]) -> None:
    gate = Gate(2)
    engine = FakeEngine(ANSWER, before_token=gate)
    async with client(engine, **ledger) as http:
        first = asyncio.create_task(http.post(CHAT, json=body(), headers=named()))
        await with_timeout(gate.reached.wait())
        refused = await http.post(CHAT, json=body(), headers=named())
        gate.opened.set()
        answer = await first
        again = await http.post(CHAT, json=body(), headers=named())

    assert refused.status_code == 409
    assert refused.headers["retry-after"] == "1"
    assert again.content == answer.content
    assert len(engine.jobs) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failed_request_can_be_retried(stream: bool, ledger: dict[str, Any]) -> None:
    failing = [True]

    async def break_off(_: Job, position: int) -> None:
        if position == 4 and failing.pop():
            failing.append(False)
            raise EngineUnavailable("gone")

    engine = FakeEngine(ANSWER, before_token=break_off)
    async with client(engine, **ledger) as http:
        failed = await http.post(CHAT, json=body(stream=stream), headers=named())
        answer = await http.post(CHAT, json=body(stream=stream), headers=named())

    assert failed.status_code == (200 if stream else 503)
    assert "idempotent-replayed" not in answer.headers
    assert answer.status_code == 200


async def test_a_refused_request_releases_its_idempotency_key(ledger: dict[str, Any]) -> None:
    contradicting = {"reasoning_format": "tags", "reasoning": {"exclude": True}}
    async with client(FakeEngine(ANSWER), **ledger) as http:
        refused = await http.post(CHAT, json=body(**contradicting), headers=named())
        answer = await http.post(CHAT, json=body(), headers=named())

    assert (refused.status_code, answer.status_code) == (400, 200)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_idempotency_key_is_released_before_a_failure_is_fully_sent(
    stream: bool, ledger: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow the database is."""
    give_up, freed = IdempotencyStore.give_up, []

    async def slow(store: IdempotencyStore, claim: Claim) -> None:
        await asyncio.sleep(0.05)
        await give_up(store, claim)
        freed.append(claim.name)

    async def break_off(_: Job, position: int) -> None:
        if position == 4:
            raise EngineUnavailable("gone")

    monkeypatch.setattr(IdempotencyStore, "give_up", slow)
    async with client(FakeEngine(ANSWER, before_token=break_off), **ledger) as http:
        for number in range(3):
            failed = await http.post(CHAT, json=body(stream=stream), headers=named())
            assert "gone" in failed.text
            assert len(freed) == number + 1


async def test_a_request_can_be_retried_after_a_disconnect(ledger: dict[str, Any]) -> None:
    gate = Gate(2)
    engine = FakeEngine(ANSWER, before_token=gate)
    async with (
        running_server(engine, **ledger) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        leaving = asyncio.create_task(http.post(CHAT, json=body(stream=True), headers=named()))
        await with_timeout(gate.reached.wait())
        leaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
        gate.opened.set()
        answer = await http.post(CHAT, json=body(stream=True), headers=named())

    assert answer.status_code == 200
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_a_response_that_is_too_long_is_not_cached(
    ledger: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "MAX_CACHED_BYTES", 10)
    engine = FakeEngine(ANSWER)
    async with client(engine, **ledger) as http:
        await http.post(CHAT, json=body(), headers=named())
        again = await http.post(CHAT, json=body(), headers=named())

    assert again.status_code == 200
    assert len(engine.jobs) == 2


@pytest.mark.parametrize(
    ("ledger_settings", "name", "status"),
    [
        ({}, "mine", 400),
        ({"replay_hours": 0}, "mine", 400),
        ({}, "", 400),
        ({}, "x" * 256, 400),
    ],
)
async def test_an_idempotency_key_that_cannot_be_stored_is_refused(
    ledger_settings: dict[str, Any], name: str, status: int, url: str
) -> None:
    settings = {"ledger": {"url": url, **ledger_settings}} if ledger_settings else {}
    engine = FakeEngine()
    async with client(engine, **settings) as http:
        answer = await http.post(CHAT, json=body(), headers=named(name))

    assert answer.status_code == status
    assert answer.json()["error"]["param"] == "idempotency-key"
    assert engine.jobs == []


async def test_a_database_outage_is_a_503_or_an_uncached_response(
    ledger: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = IdempotencyStore.claim

    async def fail(*_: Any) -> None:
        raise OSError("away")

    async def claim_before_the_outage(store: IdempotencyStore, *arguments: Any) -> Any:
        """Shorten the timeout for what follows the claim."""
        claimed = await claim(store, *arguments)
        monkeypatch.setattr(idempotency, "PATIENCE_SECONDS", 0.1)
        return claimed

    monkeypatch.setattr(idempotency, "CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(IdempotencyStore, "claim", claim_before_the_outage)

    engine = FakeEngine(ANSWER)
    async with client(engine, **ledger) as http:
        monkeypatch.setattr(IdempotencyStore, "keep", fail)
        uncached = await http.post(CHAT, json=body(), headers=named())
        monkeypatch.setattr(IdempotencyStore, "claim", fail)
        refused = await http.post(CHAT, json=body(), headers=named("other"))

    assert uncached.status_code == 200
    assert refused.status_code == 503


@pytest.mark.parametrize("away_for", [1, 3])
async def test_the_idempotency_key_is_released_after_a_database_outage(
    ledger: dict[str, Any], monkeypatch: pytest.MonkeyPatch, away_for: int
) -> None:
    give_up, left = IdempotencyStore.give_up, [away_for]
    freed = asyncio.Event()

    async def away_at_first(store: IdempotencyStore, claim: Claim) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError("away")
        await give_up(store, claim)
        freed.set()

    async def break_off(*_: Any) -> None:
        raise EngineUnavailable("gone")

    monkeypatch.setattr(IdempotencyStore, "give_up", away_at_first)
    engine = FakeEngine(ANSWER, before_token=break_off)
    async with client(engine, **ledger) as http:
        assert (await http.post(CHAT, json=body(), headers=named())).status_code == 503
        await with_timeout(freed.wait())
        again = await http.post(CHAT, json=body(), headers=named())

    assert "gone" in again.text


async def test_a_claim_that_commits_after_the_timeout_is_released(
    ledger: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction commits after the request has timed out."""
    claim_name, give_up = IdempotencyStore.claim, IdempotencyStore.give_up
    gate, freed = asyncio.Event(), asyncio.Event()

    async def late(store: IdempotencyStore, *arguments: Any) -> Any:
        await gate.wait()
        return await claim_name(store, *arguments)

    async def give_up_and_notify(store: IdempotencyStore, claim: Claim) -> None:
        await give_up(store, claim)
        freed.set()

    monkeypatch.setattr(IdempotencyStore, "give_up", give_up_and_notify)
    async with client(FakeEngine(ANSWER), **ledger) as http:
        with monkeypatch.context() as patch:
            patch.setattr(IdempotencyStore, "claim", late)
            patch.setattr(idempotency, "PATIENCE_SECONDS", 0.01)
            refused = await http.post(CHAT, json=body(), headers=named())
            gate.set()
            await with_timeout(freed.wait())
        answer = await http.post(CHAT, json=body(), headers=named())

    assert refused.status_code == 503
    assert answer.status_code == 200
