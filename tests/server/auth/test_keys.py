"""API keys: authentication, scopes, ceilings, rate limits and quotas."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request
from fastapi.routing import APIRoute
from fastapi.security import SecurityScopes
from sqlalchemy import select

from proctor.server.accounting.ledger.store import Store
from proctor.server.accounting.reservation_store import ReservationStore
from proctor.server.app import create_app
from proctor.server.auth import authenticator
from proctor.server.auth.api_key import hash_token
from proctor.server.auth.authenticator import Access, Authenticator, declared_access
from proctor.server.auth.store import KeyStore, StoredKey
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.errors import EngineUnavailable, Unavailable
from proctor.server.nanos import to_nanos
from proctor.server.storage.database import connect
from proctor.server.storage.tables import holds, spend
from tests.server.accounting.ledger.records import read_records
from tests.server.auth.keys import bearer, configured_key, make_key
from tests.server.harness import CHAT, Gate, body, client, running_server, with_timeout

pytestmark = pytest.mark.slow

PRICES = {"prompt": 0, "thinking": 1000, "answer": 1000}
"""A thousandth of a dollar for each token."""


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
async def store(file: str) -> AsyncIterator[Store]:
    made = Store(connect(file))
    await made.migrate()
    yield made
    await made.aclose()


@pytest.fixture
def keys(store: Store) -> KeyStore:
    return KeyStore(store.engine)


async def test_without_keys_authentication_is_off() -> None:
    async with client(FakeEngine()) as http:
        answer = await http.post(CHAT, json=body(), headers=bearer("whatever"))

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", CHAT),
        ("POST", "/v1/completions"),
        ("POST", "/v1/route"),
        ("POST", "/v1/feedback"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/fake"),
        ("GET", "/metrics"),
    ],
)
@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer nonsense", "Basic dXNlcjpwYXNz", "Bearer {other}", "Bearer ☃"],
)
async def test_a_missing_or_invalid_key_is_a_401(
    method: str, path: str, header: str | None
) -> None:
    key, _ = configured_key()
    _, other = configured_key()
    headers = {} if header is None else {"authorization": header.format(other=other).encode()}
    engine = FakeEngine()
    async with client(engine, keys=[key]) as http:
        answer = await http.request(method, path, headers=headers)  # type: ignore[arg-type]

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert other not in answer.text
    assert engine.jobs == []


@pytest.mark.parametrize("path", ["/health", "/ready", "/", "/docs", "/page.json", "/v1/tiers"])
async def test_public_paths_need_no_key(path: str) -> None:
    async with client(FakeEngine(), keys=[configured_key()[0]]) as http:
        assert (await http.get(path)).status_code == 200


async def test_the_scope_of_a_key_is_enforced() -> None:
    user, token = configured_key()
    admin, master = configured_key("root", "admin")
    async with client(FakeEngine(), keys=[user, admin]) as http:
        answer = await http.post(CHAT, json=body(), headers=bearer(token))
        refused = await http.get("/metrics", headers=bearer(token))
        metrics = await http.get("/metrics", headers=bearer(master))
        as_admin = await http.post(CHAT, json=body(), headers=bearer(master))

    assert (answer.status_code, as_admin.status_code, metrics.status_code) == (200, 200, 200)
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "insufficient_permissions"


async def test_keys_of_the_database_are_valid_until_they_are_revoked(
    keys: KeyStore, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticator, "CACHE_SECONDS", 0.0)
    key, token = make_key()
    await keys.add(key)
    async with client(FakeEngine(), auth={"required": True}, ledger={"url": file}) as http:
        answer = await http.post(CHAT, json=body(), headers=bearer(token))
        await keys.revoke("team")
        refused = await http.post(CHAT, json=body(), headers=bearer(token))

    assert (answer.status_code, refused.status_code) == (200, 401)
    (row,) = await read_records(file)
    assert row.key == "team"


async def test_a_cached_key_is_valid_while_the_database_is_unavailable(
    keys: KeyStore, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticator, "CACHE_SECONDS", 0.0)
    key, token = make_key()
    await keys.add(key)
    _, stranger = make_key("other")

    async def away(*_: Any) -> None:
        raise OSError("away")

    async with client(FakeEngine(), auth={"required": True}, ledger={"url": file}) as http:
        assert (await http.post(CHAT, json=body(), headers=bearer(token))).status_code == 200
        monkeypatch.setattr(KeyStore, "find", away)
        again = await http.post(CHAT, json=body(), headers=bearer(token))
        unknown = await http.post(CHAT, json=body(), headers=bearer(stranger))

    assert again.status_code == 200
    assert unknown.status_code == 503
    assert unknown.headers["retry-after"] == "5"


async def test_responses_do_not_reveal_which_key_ids_exist(
    keys: KeyStore, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, used = make_key()
    await keys.add(kept)
    shown, listed_token = configured_key("listed")
    looked_up: list[str] = []
    find = KeyStore.find

    async def watched(self: KeyStore, hashed: str) -> StoredKey | None:
        looked_up.append(hashed)
        return await find(self, hashed)

    monkeypatch.setattr(KeyStore, "find", watched)
    _, other = make_key("other")
    secret = other.rpartition("-")[2]
    tokens = [f"{token.rpartition('-')[0]}-{secret}" for token in (used, listed_token, other)]
    async with client(FakeEngine(), keys=[shown], ledger={"url": file}) as http:
        for token in (used, listed_token):
            assert (await http.get("/v1/models", headers=bearer(token))).status_code == 200
        del looked_up[:]
        answers = [await http.get("/v1/models", headers=bearer(token)) for token in tokens]

    assert [answer.status_code for answer in answers] == [401] * 3
    assert len({answer.text for answer in answers}) == 1
    assert looked_up == [hash_token(token) for token in tokens]


async def test_the_cache_of_keys_is_bounded(
    keys: KeyStore, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys_and_tokens = [make_key(name) for name in ("a", "b", "c")]
    for key, _ in keys_and_tokens:
        await keys.add(key)
    bounded = Authenticator([], keys, required=True, max_cached=2)

    async def check(token: str) -> None:
        headers = [(b"authorization", f"Bearer {token}".encode())]
        request = Request({"type": "http", "path": CHAT, "headers": headers})
        await bounded.authorize(request, SecurityScopes([Access.USER.value]))

    for _, token in keys_and_tokens:
        await check(token)
    monkeypatch.setattr(KeyStore, "find", None)
    for _, token in keys_and_tokens[1:]:
        await check(token)
    with pytest.raises(Unavailable):
        await check(keys_and_tokens[0][1])


async def test_the_ceilings_of_a_key_clamp_budgets() -> None:
    capped, token = configured_key(max_thinking_tokens=5)
    low, other = configured_key("low", tier="low")
    async with client(FakeEngine(), keys=[capped, low]) as http:
        answers = [
            await http.post(CHAT, json=body(**fields), headers=bearer(shown))
            for fields, shown in (
                ({"max_thinking_tokens": 50}, token),
                ({"budget_tier": "high"}, other),
            )
        ]
        routed = await http.post(
            "/v1/route", json=body(max_thinking_tokens=50), headers=bearer(token)
        )

    numbers, tiers = (answer.json()["choices"][0]["thinking"] for answer in answers)
    assert (numbers["max_tokens"], numbers["clamped"]) == (5, True)
    assert (tiers["max_tokens"], tiers["clamped"]) == (512, True)
    assert routed.json()["clamped_by"] == ["key"]


async def test_a_key_is_limited_to_its_models() -> None:
    key, token = configured_key(models=["fast"])
    async with client(FakeEngine(), keys=[key], aliases=["fast"]) as http:
        answer = await http.post(CHAT, json=body(model="fast"), headers=bearer(token))
        refused = await http.post(CHAT, json=body(), headers=bearer(token))

    assert answer.status_code == 200
    assert refused.status_code == 403
    assert refused.json()["error"]["param"] == "model"


async def test_rate_limits_are_enforced_and_reported(file: str, keys: KeyStore) -> None:
    key, token = configured_key(requests_per_minute=2, tokens_per_minute=1000)
    async with client(FakeEngine(), keys=[key], ledger={"url": file}) as http:
        answers = [
            await http.post(CHAT, json=body(max_tokens=50), headers=bearer(token)) for _ in range(3)
        ]
        streamed = await http.post(CHAT, json=body(stream=True), headers=bearer(token))

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    left = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
    assert left == ["1", "0", "0"]
    assert 0 < int(answers[2].headers["retry-after"]) <= 60
    assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"
    assert streamed.status_code == 429


async def test_a_request_that_could_exceed_the_quota_is_refused_before_it_runs(
    file: str, keys: KeyStore
) -> None:
    key, token = configured_key(per_day="0.05")
    engine = FakeEngine(Script(("abc",), "de"))
    overrides = {"keys": [key], "ledger": {"url": file}, "prices": PRICES}
    async with client(engine, **overrides) as http:
        refused = await http.post(CHAT, json=body(max_tokens=51), headers=bearer(token))
        answer = await http.post(CHAT, json=body(max_tokens=50), headers=bearer(token))

    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "insufficient_quota"
    assert "retry-after" not in refused.headers  # the whole limit of a day would not do
    assert "0.05 USD per day. Reduce max_tokens" in refused.json()["error"]["message"]
    assert answer.status_code == 200
    assert len(engine.jobs) == 1


async def test_feedback_is_limited_to_the_keys_own_requests(file: str, keys: KeyStore) -> None:
    both = {name: configured_key(name) for name in ("one", "two")}
    admin, master = configured_key("root", "admin")
    overrides = {"keys": [admin, *(key for key, _ in both.values())], "ledger": {"url": file}}
    async with client(FakeEngine(), **overrides) as http:
        answer = await http.post(CHAT, json=body(), headers=bearer(both["one"][1]))
        feedback = {"request_id": answer.json()["id"], "correct": True}
        statuses = [
            (await http.post("/v1/feedback", json=feedback, headers=bearer(token))).status_code
            for token in (both["two"][1], both["one"][1], master)
        ]

    assert statuses == [404, 200, 200]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_hundred_concurrent_requests_neither_overspend_nor_leak_reservations(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Three gateways share one database; some clients disconnect, some responses fail."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if kind == "postgresql":
        url = request.getfixturevalue("postgres").create("overspend")
    store = Store(connect(url))
    await store.migrate()
    key, token = make_key(per_day=1)
    await KeyStore(store.engine).add(key)
    overrides = {"ledger": {"url": url}, "prices": PRICES, "auth": {"required": True}}

    async def pause(_: Job, position: int) -> None:
        await asyncio.sleep(0.001)

    async def break_off(_: Job, position: int) -> None:
        if position == 30:
            raise EngineUnavailable("gone")

    async def ask(http: httpx.AsyncClient, number: int) -> int:
        chat = body(max_tokens=60, stream=number % 2 == 0)
        sending = http.post(CHAT, json=chat, headers=bearer(token), timeout=60)
        if number % 5:
            return (await sending).status_code
        with contextlib.suppress(TimeoutError):  # a client that disconnects
            await asyncio.wait_for(sending, 0.05 * (number % 7))
        return 0

    async with AsyncExitStack() as stack:
        clients = []
        for gateway in range(3):
            engine = FakeEngine(
                Script(("x" * 20,), "y" * 20), before_token=break_off if gateway == 2 else pause
            )
            at = await stack.enter_async_context(running_server(engine, **overrides))
            clients.append(await stack.enter_async_context(httpx.AsyncClient(base_url=at)))
        assert await ask(clients[2], 1) == 503  # while the quota allows it
        statuses = await asyncio.gather(
            *(ask(clients[number % 3], number) for number in range(100))
        )

    rows = await read_records(url)
    database = connect(url)
    async with database.connect() as connection:
        left = (await connection.execute(select(holds.c.id))).all()
        spent = await connection.scalar(select(spend.c.nanos))
    await database.dispose()
    await store.aclose()
    costs = [row.cost.total for row in rows if row.cost is not None]
    assert left == []
    assert spent == sum(map(to_nanos, costs))
    assert Decimal(0) < sum(costs) <= 1
    assert {200, 429} <= {*statuses}


async def test_the_reservation_of_a_disconnected_client_is_released(
    file: str, keys: KeyStore, store: Store
) -> None:
    key, token = make_key(tokens_per_minute=100)
    await keys.add(key)
    gate = Gate(5)
    engine = FakeEngine(Script(("x" * 20,), "y"), before_token=gate)
    overrides = {"ledger": {"url": file}, "auth": {"required": True}}
    async with (
        running_server(engine, **overrides) as url,
        httpx.AsyncClient(base_url=url, headers=bearer(token)) as http,
    ):
        leaving = asyncio.create_task(http.post(CHAT, json=body(max_tokens=50, stream=True)))
        await with_timeout(gate.reached.wait())
        leaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving

    (row,) = await read_records(file)
    assert row.status == 499
    assert (
        await ReservationStore(store.engine).usage("team", row.time)
    ).tokens == row.prompt_tokens + row.completion_tokens


def test_every_route_declares_what_it_requires() -> None:
    app = create_app(Settings(), FakeEngine)
    declared = {
        f"{method} {route.path}": declared_access(route)
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    assert declared == {
        "POST /v1/chat/completions": Access.USER,
        "POST /v1/completions": Access.USER,
        "POST /v1/messages": Access.USER,
        "POST /v1/messages/count_tokens": Access.USER,
        "POST /v1/responses": Access.USER,
        "GET /v1/responses/{response_id}": Access.USER,
        "DELETE /v1/responses/{response_id}": Access.USER,
        "POST /v1/responses/{response_id}/cancel": Access.USER,
        "GET /v1/responses/{response_id}/input_items": Access.USER,
        "POST /v1/route": Access.USER,
        "POST /v1/feedback": Access.USER,
        "GET /v1/sessions/{session}": Access.USER,
        "POST /tokenize": Access.USER,
        "POST /detokenize": Access.USER,
        "GET /tokenizer_info": Access.USER,
        "GET /v1/models": Access.USER,
        "GET /v1/models/{name:path}": Access.USER,
        "GET /load": Access.USER,
        "GET /metrics": Access.ADMIN,
        "GET /v1/tiers": Access.PUBLIC,
        "GET /health": Access.PUBLIC,
        "GET /ready": Access.PUBLIC,
        "GET /version": Access.PUBLIC,
        "GET /page.json": Access.PUBLIC,
    }
    others: list[Any] = [route for route in app.routes if not isinstance(route, APIRoute)]
    assert {route.path for route in others} == {"/", "/docs", "/openapi.json", "/static"}


async def test_a_route_without_a_declaration_is_forbidden() -> None:
    app = create_app(Settings(), FakeEngine)
    app.add_api_route("/v1/new", lambda: "open")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as http:
        answer = await http.get("/v1/new")

    assert answer.status_code == 403
