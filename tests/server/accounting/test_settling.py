"""The unused part of a reservation is released as soon as the request ends.

No row is written during these tests, so that whatever depends on one fails.
"""

import asyncio
import contextlib
from typing import Any

import httpx
import pytest

from proctor.server.accounting.ledger import writer
from proctor.server.accounting.ledger.store import Store
from proctor.server.accounting.reservation_store import ReservationStore
from proctor.server.auth.store import KeyStore
from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.errors import EngineUnavailable
from proctor.server.nanos import to_nanos
from proctor.server.storage.database import connect
from proctor.server.telemetry import request_monitor
from tests.server.accounting.ledger.records import read_records
from tests.server.auth.keys import bearer, make_key
from tests.server.harness import CHAT, Gate, body, client, running_server, with_timeout

pytestmark = pytest.mark.slow

COMPLETIONS = "/v1/completions"
SCRIPT = Script(("abc",), "de")
PRICES = {"prompt": 0, "thinking": 1000, "answer": 1000}
"""A thousandth of a dollar for each token."""

TOKENS = 130
"""The maximum of each request, which uses far fewer."""


@pytest.fixture(autouse=True)
def no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LINGER_SECONDS", 3600)


@pytest.fixture
async def token(url: str, store: Store) -> str:
    """The token of a key whose limits allow a little more than one request at a time."""
    key, made = make_key(per_day="0.2", tokens_per_minute=260)
    await KeyStore(store.engine).add(key)
    return made


@pytest.fixture
def overrides(url: str, token: str) -> dict[str, Any]:
    return {"ledger": {"url": url}, "prices": PRICES, "auth": {"required": True}}


def request_body(path: str, **fields: Any) -> dict[str, Any]:
    fields = {"max_tokens": TOKENS, **fields}
    return body(**fields) if path == CHAT else {"model": "fake", "prompt": "x", **fields}


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("stream", [False, True])
async def test_unused_tokens_are_available_to_the_next_request(
    path: str, stream: bool, overrides: dict[str, Any], token: str, url: str
) -> None:
    async with client(FakeEngine(SCRIPT), **overrides) as http:
        answers = [
            await http.post(path, json=request_body(path, stream=stream), headers=bearer(token))
            for _ in range(3)
        ]
        assert await read_records(url) == []

    assert [answer.status_code for answer in answers] == [200] * 3, answers[1].text
    left = [int(answer.headers["x-ratelimit-remaining-tokens"]) for answer in answers]
    rows = await read_records(url)
    took = rows[0].prompt_tokens + rows[0].completion_tokens
    assert left[0] - left[1] == left[1] - left[2] == took < TOKENS


async def test_reservations_are_settled_before_the_last_choice_is_sent(
    overrides: dict[str, Any], token: str
) -> None:
    async with (
        running_server(FakeEngine(SCRIPT), **overrides) as at,
        httpx.AsyncClient(base_url=at, headers=bearer(token), timeout=300) as http,
    ):
        for _ in range(3):
            async with http.stream(
                "POST", CHAT, json=request_body(CHAT, n=2, max_tokens=TOKENS // 2, stream=True)
            ) as answer:
                assert answer.status_code == 200
                ended = 0
                async for line in answer.aiter_lines():
                    ended += '"finish_reason":"stop"' in line
                    if ended == 2:
                        break


async def test_other_gateways_see_the_settlement_at_once(
    overrides: dict[str, Any], token: str
) -> None:
    async with (
        client(FakeEngine(SCRIPT), **overrides) as one,
        client(FakeEngine(SCRIPT), **overrides) as other,
    ):
        for http in (one, other) * 2:
            answer = await http.post(CHAT, json=request_body(CHAT), headers=bearer(token))
            assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failed_request_keeps_no_reservation(
    path: str, stream: bool, overrides: dict[str, Any], token: str
) -> None:
    async def break_off(job: Job, position: int) -> None:
        if position == 2 and job.id.endswith("0"):
            raise EngineUnavailable("gone")

    engine = FakeEngine(Script(("x" * 20,), "y"), before_token=break_off)
    async with client(engine, **overrides) as http:
        for _ in range(3):
            answer = await http.post(
                path,
                json=request_body(path, n=2, max_tokens=TOKENS // 2, stream=stream),
                headers=bearer(token),
            )
            assert answer.status_code == (200 if stream else 503), answer.text
            assert "gone" in answer.text


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_timed_out_keeps_no_reservation(
    stream: bool, overrides: dict[str, Any], token: str
) -> None:
    async with client(FakeEngine(SCRIPT, before_token=Gate(3)), **overrides) as http:
        for _ in range(3):
            answer = await http.post(
                CHAT,
                json=request_body(CHAT, stream=stream),
                headers={**bearer(token), "x-request-timeout": "0.05"},
            )
            assert "timeout" in answer.text


@pytest.mark.parametrize("stream", [False, True])
async def test_the_next_request_waits_for_the_settlement_of_a_disconnected_one(
    stream: bool, overrides: dict[str, Any], token: str, url: str
) -> None:
    gate = Gate(5)
    async with (
        running_server(FakeEngine(Script(("x" * 20,), "y"), before_token=gate), **overrides) as at,
        httpx.AsyncClient(base_url=at, headers=bearer(token), timeout=300) as http,
    ):
        leaving = asyncio.create_task(http.post(CHAT, json=request_body(CHAT, stream=stream)))
        await with_timeout(gate.reached.wait())
        leaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
        gate.opened.set()
        answer = await http.post(CHAT, json=request_body(CHAT))

    assert answer.status_code == 200, answer.text
    assert {row.status for row in await read_records(url)} == {200, 499}


async def test_a_refused_request_keeps_no_reservation(
    overrides: dict[str, Any], token: str, url: str
) -> None:
    contradicting = {"reasoning_format": "tags", "reasoning": {"exclude": True}}
    async with client(FakeEngine(SCRIPT), **overrides) as http:
        for _ in range(3):
            answer = await http.post(
                CHAT, json=request_body(CHAT, **contradicting), headers=bearer(token)
            )
            assert answer.status_code == 400

    assert await read_records(url) == []


async def test_a_failed_settlement_is_made_up_for_by_the_row(
    overrides: dict[str, Any], token: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise OSError("away")

    monkeypatch.setattr(ReservationStore, "settle", away)
    async with client(FakeEngine(SCRIPT), **overrides) as http:
        answer = await http.post(CHAT, json=request_body(CHAT), headers=bearer(token))
        refused = await http.post(CHAT, json=request_body(CHAT), headers=bearer(token))

    assert (answer.status_code, refused.status_code) == (200, 429)
    (row,) = await read_records(url)
    engine = connect(url)
    usage = await ReservationStore(engine).usage("team", row.time)
    await engine.dispose()
    assert row.cost is not None
    assert usage.day == to_nanos(row.cost.total)


async def test_a_hanging_database_delays_the_last_byte_by_a_limited_time(
    overrides: dict[str, Any], token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = asyncio.Event()

    async def hang(*_: Any) -> None:
        await back.wait()

    monkeypatch.setattr(request_monitor, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(ReservationStore, "settle", hang)
    async with client(FakeEngine(SCRIPT), **overrides) as http:
        answer = await http.post(CHAT, json=request_body(CHAT), headers=bearer(token))
        back.set()

    assert answer.status_code == 200
