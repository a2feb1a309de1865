"""64 parallel calls of one session on two gateways, of which one is killed in between.

The limits are never exceeded by a token, and what the killed gateway had reserved is released.
"""

import asyncio
import signal
from dataclasses import dataclass, field

import httpx
import pytest
from sqlalchemy import func, select

from proctor.server.accounting.ledger.store import Store
from proctor.server.sessions.limits import SessionUsage
from proctor.server.sessions.report import SessionReader
from proctor.server.storage.database import connect
from proctor.server.storage.tables import holds
from tests.server.accounting.ledger.killable import (
    Gateway,
    ledger_environment,
    two_gateways,
    until,
)
from tests.server.accounting.ledger.records import read_records
from tests.server.harness import CHAT, body, with_timeout

pytestmark = pytest.mark.slow

CALLS = 64
ROUNDS = 4
THINKING = 400
"""Less than the calls would think, which is about 20 tokens each."""

TOKENS = 4000
"""Less than the calls would use, which is about 15 tokens each without thinking."""

SESSION = {"id": "agent", "max_thinking_tokens": THINKING, "max_tokens": TOKENS}


@dataclass
class Seen:
    """What the clients have seen.

    Attributes:
        thinking: the thinking tokens of each answer.
        tokens: all tokens of each answer.
        some: set when so many answers have arrived that one gateway can be killed.
    """

    thinking: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    some: asyncio.Event = field(default_factory=asyncio.Event)


async def call(http: httpx.AsyncClient, gateway: Gateway, seen: Seen) -> None:
    answer = await http.post(gateway.url + CHAT, json=body(max_tokens=100, session=SESSION))
    if answer.status_code == 429:
        assert answer.json()["error"]["code"] == "session_limit_exceeded", answer.text
        return
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    seen.thinking.append(usage["completion_tokens_details"]["reasoning_tokens"])
    seen.tokens.append(usage["total_tokens"])
    if len(seen.tokens) >= CALLS // 4:
        seen.some.set()


async def watch(url: str, most: list[SessionUsage]) -> None:
    """Add what the session has used and reserved, over and over, until cancelled."""
    engine = connect(url, reads_only=True)
    try:
        while True:
            report = await SessionReader(engine).report("", "agent")
            if report is not None:
                most.append(report.used + report.reserved)
            await asyncio.sleep(0.002)
    finally:
        await engine.dispose()


async def count_holds(store: Store) -> int:
    async with store.engine.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(holds)) or 0


async def test_parallel_calls_never_exceed_the_limits(url: str) -> None:
    store = Store(connect(url))
    await store.migrate()
    seen, observed = Seen(), list[SessionUsage]()
    http = httpx.AsyncClient(limits=httpx.Limits(max_connections=None))
    async with two_gateways(ledger_environment(url)) as both, http:
        killed, other = both

        async def calls(number: int) -> None:
            for turn in range(ROUNDS):
                try:
                    await call(http, both[(number + turn) % 2], seen)
                except httpx.TransportError:  # of the killed gateway
                    await call(http, other, seen)

        watching = asyncio.create_task(watch(url, observed))
        running = [asyncio.create_task(calls(number)) for number in range(CALLS)]
        await with_timeout(seen.some.wait())
        killed.send_signal(signal.SIGKILL)
        await with_timeout(asyncio.gather(*running))

        async def is_released() -> bool:
            return not await count_holds(store)

        await until(is_released)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        card = (await http.get(f"{other.url}/v1/sessions/agent")).json()
    await store.aclose()

    rows, used = await read_records(url), card["used"]
    assert used["thinking_tokens"] == sum(row.thinking_tokens for row in rows)
    assert used["requests"] == len(rows) >= len(seen.tokens)
    assert card["reserved"] == {"requests": 0, "thinking_tokens": 0, "tokens": 0, "cost": 0}
    assert 0 < sum(seen.thinking) <= used["thinking_tokens"] <= THINKING
    assert 0 < sum(seen.tokens) <= used["tokens"] <= TOKENS
    # Nor was more ever reserved, used or not.
    assert max(usage.thinking_tokens for usage in observed) <= THINKING
    assert max(usage.tokens for usage in observed) <= TOKENS
    assert any(row.clamped_by == "session" for row in rows)
