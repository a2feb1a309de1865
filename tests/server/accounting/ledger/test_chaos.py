"""Two gateways on one PostgreSQL that are killed, stopped and cut off, and what is left of it.

A key has money for some two hundred answers. Clients spend it all by both gateways, name every
request and ask again by that name until it is answered, while gateways and the database go away
and come back. Whatever happened: the key has spent no more than it may, every answer that came is
in the ledger once as it came, and nothing is held or claimed in the end.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from random import Random

import httpx
import orjson
import pytest
from sqlalchemy import func, select

from proctor.server.accounting.ledger.store import Store
from proctor.server.auth.store import KeyStore
from proctor.server.pricing import to_nanos
from proctor.server.storage.database import connect
from proctor.server.storage.tables import gateways, holds, replays, requests, spend
from tests.server.accounting.ledger.postgres import Cluster
from tests.server.accounting.ledger.records import read_records
from tests.server.auth.keys import bearer, make_key
from tests.server.harness import CHAT, body, parse_events
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[4]
SERVER = """
import asyncio, random
import proctor.server.cli.main, proctor.server.accounting.ledger.lease, proctor.server.cli.serve
from proctor.server.engines.fake import FakeEngine, Script

proctor.server.accounting.ledger.lease.RENEW_SECONDS = 0.1

async def work(job, position):
    # Long enough to be killed in the middle.
    await asyncio.sleep(0.03 if job.sampling.max_tokens > 100 else random.random() * 0.004)

def script(job):
    long = job.sampling.max_tokens > 100
    return Script(("x" * (200 if long else random.Random(job.id).randint(1, 40)),), "yes")

proctor.server.cli.serve.load_engine = lambda settings: FakeEngine(script, before_token=work)
raise SystemExit(proctor.server.cli.main.main(["serve", "--port", "0", "--model", "fake"]))
"""
TOKEN_COST = Decimal("0.001")
MOST_TOKENS = 64
ANSWERS = 120
"""That the key has money for, if each takes half of what it may."""

CLIENTS = 8
BETWEEN = 8
"""Answers, or requests that could not be answered, from one event to the next."""


@dataclass
class Gateway:
    """One of the two, whichever process it is at the time."""

    url: str = ""
    process: asyncio.subprocess.Process | None = None

    def tell(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def start(self, environment: dict[str, str]) -> None:
        self.process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVER, stdout=asyncio.subprocess.PIPE, env=environment
        )
        assert process.stdout is not None
        said = ""
        while "curl" not in said:
            line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
            assert line, "the server ended"
            said += line
        found = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert found is not None
        self.url = found[0]

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.tell(signal.SIGCONT)
                self.tell(signal.SIGKILL)
            await self.process.wait()


@dataclass
class History:
    """What clients saw.

    Attributes:
        answers: tokens of each answer that came whole, by its id.
        names: the answers that each name brought.
        tries: how often anything was tried.
        spent: set when the key has no more money.
    """

    answers: dict[str, int] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)
    tries: int = 0
    spent: asyncio.Event = field(default_factory=asyncio.Event)

    async def more(self, count: int) -> None:
        """Wait until so many more tries have ended."""
        wanted = self.tries + count
        await until(lambda: asyncio.sleep(0, self.tries >= wanted or self.spent.is_set()))


async def until(holds_true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await holds_true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def spend_all(
    number: int,
    http: httpx.AsyncClient,
    both: list[Gateway],
    history: History,
    headers: dict[str, str],
) -> None:
    """Ask until the key has no more money, each request until it is answered."""
    rng = Random(number)
    asked = 0
    while not history.spent.is_set():
        asked += 1
        name = f"{number}-{asked}"
        stream = rng.random() < 0.5
        options = {"include_usage": True} if stream else None
        request = body(max_tokens=MOST_TOKENS, stream=stream, stream_options=options)
        while not history.spent.is_set():
            gateway = rng.choice(both)
            with contextlib.suppress(httpx.HTTPError):
                named = headers | {"idempotency-key": name}
                answer = await http.post(gateway.url + CHAT, json=request, headers=named)
                if note(history, name, answer):
                    break
            history.tries += 1
            await asyncio.sleep(0.02)


def note(history: History, name: str, answer: httpx.Response) -> bool:
    """Note what came; whether it was a whole answer."""
    history.tries += 1
    if answer.status_code != 200:
        assert answer.status_code in (409, 429, 503), answer.text
        if answer.json()["error"]["code"] == "insufficient_quota":
            history.spent.set()
        return False
    if answer.headers["content-type"].startswith("text/event-stream"):
        told = [event.data for event in parse_events(answer.text)]
        if told[-1] != "[DONE]":
            return False
        told_last = told[-2]
    else:
        told_last = orjson.loads(answer.content)
    history.answers[told_last["id"]] = told_last["usage"]["completion_tokens"]
    history.names.setdefault(name, set()).add(told_last["id"])
    return True


@asynccontextmanager
async def two(environment: dict[str, str]) -> AsyncIterator[list[Gateway]]:
    async with AsyncExitStack() as stack:
        both = [Gateway(), Gateway()]
        for gateway in both:
            stack.push_async_callback(gateway.end)
            await gateway.start(environment)
        yield both


def environment_of(url: str) -> dict[str, str]:
    price = str(1_000_000 * TOKEN_COST)
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "PROCTOR_LEDGER__URL": url,
        "PROCTOR_AUTH__REQUIRED": "true",
        "PROCTOR_DEFAULT_TIER": "custom",
        "PROCTOR_PRICES__PROMPT": "0",
        "PROCTOR_PRICES__THINKING": price,
        "PROCTOR_PRICES__ANSWER": price,
    }


async def opened(url: str, per_day: Decimal) -> tuple[Store, str]:
    """A ledger with one key, and its token."""
    key, token = make_key(per_day=str(per_day))
    store = Store(connect(url))
    await store.migrate()
    await KeyStore(store.engine).add(key)
    return store, token


async def test_tokens_generated_by_a_killed_gateway_are_charged(url: str) -> None:
    store, token = await opened(url, TOKEN_COST * 2_000)
    asked = body(max_tokens=900, stream=True)
    headers = bearer(token) | {"idempotency-key": "mine"}
    async with two(environment_of(url)) as (killed, other):
        seen = 0
        with contextlib.suppress(httpx.HTTPError):
            async with (
                httpx.AsyncClient(base_url=killed.url) as http,
                http.stream("POST", CHAT, json=asked, headers=headers) as answer,
            ):
                async for line in answer.aiter_lines():
                    seen += '"reasoning_content":"x' in line
                    if seen and await drafted(store, seen):
                        break
                killed.tell(signal.SIGKILL)
        async with httpx.AsyncClient(base_url=other.url) as http:

            async def answered() -> bool:
                """Whether the name is free."""
                again = await http.post(CHAT, json=asked, headers=headers)
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


async def drafted(store: Store, tokens: int) -> bool:
    """Whether a gateway has told that a request of its has come so far."""
    async with store.engine.connect() as connection:
        drafts = await connection.scalars(select(holds.c.draft))
        return any(orjson.loads(draft)["completion_tokens"] >= tokens for draft in drafts if draft)


@pytest.mark.parametrize("seed", [1, 2])
async def test_kills_and_outages_cause_no_overspending_and_lose_no_row(
    postgres: Cluster, seed: int
) -> None:
    url = postgres.create(f"chaos{seed}")
    most = TOKEN_COST * MOST_TOKENS * ANSWERS / 2
    store, token = await opened(url, most)
    environment = environment_of(url)
    history, rng = History(), Random(seed)
    async with two(environment) as both, httpx.AsyncClient() as http:
        clients = [
            asyncio.create_task(spend_all(number, http, both, history, bearer(token)))
            for number in range(CLIENTS)
        ]
        try:
            for event in rng.sample(["kill", "kill", "stop", "stop", "outage", "outage"], 6):
                await history.more(BETWEEN)
                await happens(event, rng.choice(both), history, environment, postgres, store)
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*clients)
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
        for gateway in both:
            gateway.tell(signal.SIGTERM)
            assert gateway.process is not None
            assert await asyncio.wait_for(gateway.process.wait(), PATIENCE) == 0

    rows = {row.id: row for row in await read_records(url)}
    assert len(history.answers) > ANSWERS // 4
    # Each answer that came is in the ledger as it came, even if its server was killed then.
    for name, tokens in history.answers.items():
        row = rows[name]
        assert (row.status, row.finish_reason) == (200, "stop")
        assert row.completion_tokens == tokens
        assert row.cost is not None
        assert row.cost.total == tokens * TOKEN_COST
    # Those who asked again by a name that was answered got that answer.
    assert all(len(ids) == 1 for ids in history.names.values())
    # What was spent is what the rows cost, and no more than there was.
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


async def written(store: Store, history: History) -> None:
    """Wait, under load, until the ledger has what came while the database was away.

    Whoever kills a gateway before loses that: it is nowhere else.
    """
    old = {*history.answers}

    async def all_there() -> bool:
        async with store.engine.connect() as connection:
            return old <= {*await connection.scalars(select(requests.c.id))}

    await until(all_there)


async def happens(
    event: str,
    gateway: Gateway,
    history: History,
    environment: dict[str, str],
    database: Cluster,
    store: Store,
) -> None:
    match event:
        case "kill":
            await written(store, history)
            await gateway.end()
            await history.more(BETWEEN)
            await gateway.start(environment)
        case "stop":
            gateway.tell(signal.SIGSTOP)
            await asyncio.sleep(0.5)
            gateway.tell(signal.SIGCONT)
        case "outage":
            await asyncio.to_thread(database.stop)
            await history.more(BETWEEN)
            await asyncio.to_thread(database.start)
