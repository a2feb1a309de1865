"""Two gateways on one PostgreSQL are killed, stopped and cut off from it.

The quota of a key pays for a limited number of responses. Clients use it up through both gateways,
give every request an idempotency key, and retry it until it succeeds, while the gateways and the
database fail and recover. Afterwards, the key has not overspent, every complete response is in the
ledger exactly once, and no reservation or claim is left.
"""

import asyncio
import contextlib
import signal
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random

import httpx
import orjson
import pytest
from sqlalchemy import func, select

from proctor.server.accounting.ledger.store import Store
from proctor.server.auth.store import KeyStore
from proctor.server.nanos import to_nanos
from proctor.server.storage.database import connect
from proctor.server.storage.tables import gateways, holds, replays, requests, spend
from tests.server.accounting.ledger.killable import (
    Gateway,
    ledger_environment,
    two_gateways,
    until,
)
from tests.server.accounting.ledger.postgres import Cluster
from tests.server.accounting.ledger.records import read_records
from tests.server.auth.keys import bearer, make_key
from tests.server.harness import CHAT, body, parse_events
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow

TOKEN_COST = Decimal("0.001")
MAX_TOKENS = 64
ANSWERS = 120
"""The responses that the key's quota pays for, if each uses half of its maximum."""

CLIENTS = 8
TRIES_BETWEEN_EVENTS = 8
"""Responses and failed attempts between two events."""


@dataclass
class History:
    """What the clients observed.

    Attributes:
        answers: the completion tokens of each complete response, by its id.
        names: the ids of the responses to each idempotency key.
        tries: the number of attempts.
        spent: set when the key's quota is exhausted.
    """

    answers: dict[str, int] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)
    tries: int = 0
    spent: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_for_tries(self, count: int) -> None:
        """Wait for a number of further attempts."""
        wanted = self.tries + count
        await until(lambda: asyncio.sleep(0, self.tries >= wanted or self.spent.is_set()))


async def spend_all(
    number: int,
    http: httpx.AsyncClient,
    both: list[Gateway],
    history: History,
    headers: dict[str, str],
) -> None:
    """Send requests until the quota is exhausted, and retry each until it succeeds."""
    rng = Random(number)
    sent = 0
    while not history.spent.is_set():
        sent += 1
        name = f"{number}-{sent}"
        stream = rng.random() < 0.5
        options = {"include_usage": True} if stream else None
        request = body(max_tokens=MAX_TOKENS, stream=stream, stream_options=options)
        while not history.spent.is_set():
            gateway = rng.choice(both)
            with contextlib.suppress(httpx.HTTPError):
                named = headers | {"idempotency-key": name}
                answer = await http.post(gateway.url + CHAT, json=request, headers=named)
                if record(history, name, answer):
                    break
            history.tries += 1
            await asyncio.sleep(0.02)


def record(history: History, name: str, response: httpx.Response) -> bool:
    """Record a response; return whether it was complete and successful."""
    history.tries += 1
    if response.status_code != 200:
        assert response.status_code in (409, 429, 503), response.text
        if response.json()["error"]["code"] == "insufficient_quota":
            history.spent.set()
        return False
    if response.headers["content-type"].startswith("text/event-stream"):
        data = [event.data for event in parse_events(response.text)]
        if data[-1] != "[DONE]":
            return False
        last = data[-2]
    else:
        last = orjson.loads(response.content)
    history.answers[last["id"]] = last["usage"]["completion_tokens"]
    history.names.setdefault(name, set()).add(last["id"])
    return True


def environment_of(url: str) -> dict[str, str]:
    price = str(1_000_000 * TOKEN_COST)
    return ledger_environment(url) | {
        "PROCTOR_AUTH__REQUIRED": "true",
        "PROCTOR_PRICES__PROMPT": "0",
        "PROCTOR_PRICES__THINKING": price,
        "PROCTOR_PRICES__ANSWER": price,
    }


async def create_ledger(url: str, per_day: Decimal) -> tuple[Store, str]:
    """Create a ledger with one key; return it and the key's token."""
    key, token = make_key(per_day=str(per_day))
    store = Store(connect(url))
    await store.migrate()
    await KeyStore(store.engine).add(key)
    return store, token


async def test_tokens_generated_by_a_killed_gateway_are_charged(url: str) -> None:
    store, token = await create_ledger(url, TOKEN_COST * 2_000)
    request = body(max_tokens=900, stream=True)
    headers = bearer(token) | {"idempotency-key": "mine"}
    async with two_gateways(environment_of(url)) as (killed, other):
        seen = 0
        with contextlib.suppress(httpx.HTTPError):
            async with (
                httpx.AsyncClient(base_url=killed.url) as http,
                http.stream("POST", CHAT, json=request, headers=headers) as answer,
            ):
                async for line in answer.aiter_lines():
                    seen += '"reasoning_content":"x' in line
                    if seen and await has_draft(store, seen):
                        break
                killed.send_signal(signal.SIGKILL)
        async with httpx.AsyncClient(base_url=other.url) as http:

            async def answered() -> bool:
                """Return whether the idempotency key has been released."""
                again = await http.post(CHAT, json=request, headers=headers)
                return again.status_code == 200

            await until(answered)

    (estimate,) = [row for row in await read_records(url) if row.estimated]
    async with store.engine.connect() as connection:
        spent = await connection.scalar(select(func.sum(spend.c.nanos)))
    await store.aclose()
    assert (estimate.status, estimate.finish_reason) == (500, "abort")
    assert estimate.completion_tokens >= seen > 0
    assert estimate.cost is not None
    assert estimate.cost.total == estimate.completion_tokens * TOKEN_COST
    costs = [row.cost.total for row in await read_records(url) if row.cost is not None]
    assert spent == to_nanos(sum(costs, Decimal()))


async def has_draft(store: Store, tokens: int) -> bool:
    """Return whether a draft with at least so many completion tokens is stored."""
    async with store.engine.connect() as connection:
        drafts = await connection.scalars(select(holds.c.draft))
        return any(orjson.loads(draft)["completion_tokens"] >= tokens for draft in drafts if draft)


@pytest.mark.parametrize("seed", [1, 2])
async def test_kills_and_outages_cause_no_overspending_and_lose_no_row(
    postgres: Cluster, seed: int
) -> None:
    url = postgres.create(f"chaos{seed}")
    most = TOKEN_COST * MAX_TOKENS * ANSWERS / 2
    store, token = await create_ledger(url, most)
    environment = environment_of(url)
    history, rng = History(), Random(seed)
    async with two_gateways(environment) as both, httpx.AsyncClient() as http:
        clients = [
            asyncio.create_task(spend_all(number, http, both, history, bearer(token)))
            for number in range(CLIENTS)
        ]
        try:
            for event in rng.sample(["kill", "kill", "stop", "stop", "outage", "outage"], 6):
                await history.wait_for_tries(TRIES_BETWEEN_EVENTS)
                await trigger(event, rng.choice(both), history, environment, postgres, store)
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*clients)
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
        for gateway in both:
            gateway.send_signal(signal.SIGTERM)
            assert gateway.process is not None
            assert await asyncio.wait_for(gateway.process.wait(), PATIENCE) == 0

    rows = {row.id: row for row in await read_records(url)}
    assert len(history.answers) > ANSWERS // 4
    # Every complete response is in the ledger, even if its gateway was killed afterwards.
    for name, tokens in history.answers.items():
        row = rows[name]
        assert (row.status, row.finish_reason) == (200, "stop")
        assert row.completion_tokens == tokens
        assert row.cost is not None
        assert row.cost.total == tokens * TOKEN_COST
    # A retry with the same idempotency key got the same response.
    assert all(len(ids) == 1 for ids in history.names.values())
    # The spent amount equals the costs of the rows, and is within the quota.
    costs = [to_nanos(row.cost.total) for row in rows.values() if row.cost is not None]
    async with store.engine.connect() as connection:
        spent = await connection.scalar(select(func.sum(spend.c.nanos)))
        claims = select(func.count()).select_from(replays).where(replays.c.media_type.is_(None))
        left = [
            await connection.scalar(select(func.count()).select_from(table))
            for table in (gateways, holds)
        ]
        left.append(await connection.scalar(claims))
    await store.aclose()
    assert spent == sum(costs) <= to_nanos(most)
    assert left == [0, 0, 0]


async def wait_until_written(store: Store, history: History) -> None:
    """Wait, under load, until the ledger has the responses that were sent during the outage.

    A gateway that is killed earlier loses those rows, which are only in its memory.
    """
    old = {*history.answers}

    async def all_there() -> bool:
        async with store.engine.connect() as connection:
            return old <= {*await connection.scalars(select(requests.c.id))}

    await until(all_there)


async def trigger(
    event: str,
    gateway: Gateway,
    history: History,
    environment: dict[str, str],
    database: Cluster,
    store: Store,
) -> None:
    match event:
        case "kill":
            await wait_until_written(store, history)
            await gateway.end()
            await history.wait_for_tries(TRIES_BETWEEN_EVENTS)
            await gateway.start(environment)
        case "stop":
            gateway.send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.5)
            gateway.send_signal(signal.SIGCONT)
        case "outage":
            await asyncio.to_thread(database.stop)
            await history.wait_for_tries(TRIES_BETWEEN_EVENTS)
            await asyncio.to_thread(database.start)
