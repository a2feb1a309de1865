"""Two gateways over three replicas, on one PostgreSQL, while all of them fail and recover.

Replicas are killed, stopped, cut off and slowed down, gateways are killed. Clients use up the quota
of a key through both gateways, and retry what fails. Afterwards no budget was broken, the key has
not overspent, every complete response is in the ledger exactly once, nothing hangs, and no
reservation is left.
"""

import asyncio
import contextlib
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from proctor.budget import BudgetStateMachine, TokenBudget
from proctor.server.engines.fake import MARKERS, VOCABULARY
from proctor.server.nanos import to_nanos
from proctor.server.storage.tables import gateways, holds, spend
from tests.server.accounting.ledger.killable import Gateway, two_gateways
from tests.server.accounting.ledger.postgres import Cluster
from tests.server.accounting.ledger.records import read_records
from tests.server.accounting.ledger.test_chaos import (
    TOKEN_COST,
    History,
    create_ledger,
    environment_of,
)
from tests.server.auth.keys import bearer
from tests.server.engines.replicas.lossy_proxy import LossyProxy
from tests.server.harness import CHAT, body, free_port, parse_events
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow

SERVER = """
import sys
import proctor.server.cli.main, proctor.server.accounting.ledger.lease, proctor.server.cli.serve
from proctor.server.engines.replicas.balancing.health import HealthSettings
from tests.server.engines.replicas.local import engine_over

proctor.server.accounting.ledger.lease.RENEW_SECONDS = 0.1
health = HealthSettings(stall_seconds=2.0, probe_seconds=0.5)
proctor.server.cli.serve.load_engine = lambda settings: engine_over({urls!r}, health=health)
raise SystemExit(proctor.server.cli.main.main(["serve", "--port", "0", "--model", "scripted"]))
"""
REPLICA = "tests.server.engines.replicas.scripted_replica"
TOKEN_SECONDS = 0.004
MAX_TOKENS = 120
ANSWERS = 150
"""The responses that the key's quota pays for, if each uses all of its maximum."""

CLIENTS = 10
EVENTS = ["kill replica", "stop replica", "cut off", "slow down", "kill gateway"] * 2
TRIES_BETWEEN_EVENTS = 6


@dataclass
class ReplicaProcess:
    """A replica process behind a proxy."""

    port: int
    proxy: LossyProxy
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            REPLICA,
            f"--port={self.port}",
            f"--seconds-per-token={TOKEN_SECONDS}",
        )

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.kill()
            await self.process.wait()


@dataclass
class ReplicaHistory(History):
    """What the clients observed.

    Attributes:
        failures: how many of their attempts failed.
    """

    failures: int = 0


async def spend_all(
    number: int,
    http: httpx.AsyncClient,
    both: list[Gateway],
    history: ReplicaHistory,
    headers: dict[str, str],
) -> None:
    """Send requests with random budgets until the quota is exhausted."""
    rng = Random(number)
    while not history.spent.is_set():
        minimum, maximum = sorted((rng.randint(0, 60), rng.randint(0, 60)))
        request = body(
            model="scripted",
            messages=[{"role": "user", "content": f"question {rng.random()}"}],
            max_tokens=MAX_TOKENS,
            min_thinking_tokens=minimum,
            max_thinking_tokens=maximum,
            stream=rng.random() < 0.5,
            return_token_ids=True,
        )
        if request["stream"]:
            request["stream_options"] = {"include_usage": True}
        try:
            answer = await http.post(rng.choice(both).url + CHAT, json=request, headers=headers)
        except httpx.TimeoutException:
            raise  # a hang
        except httpx.HTTPError:
            history.failures += 1  # its gateway was killed
            await asyncio.sleep(0.05)
        else:
            record(history, request, answer)
        history.tries += 1


def record(history: ReplicaHistory, request: dict[str, Any], response: httpx.Response) -> None:
    """Record a response. A complete one must have kept its budget."""
    if response.status_code != 200:
        assert response.status_code in (429, 503), response.text
        if response.json()["error"]["code"] == "insufficient_quota":
            history.spent.set()
        history.failures += 1
        return
    if not request["stream"]:
        answer = response.json()
        choice = answer["choices"][0]
        check(request, choice["token_ids"], choice["thinking"], answer["usage"])
        history.answers[answer["id"]] = answer["usage"]["completion_tokens"]
        return
    events = [event.data for event in parse_events(response.text)]
    if not events or events[-1] != "[DONE]":
        history.failures += 1
        return
    choices = [choice for event in events[:-1] for choice in event["choices"]]
    token_ids = [token for choice in choices for token in choice.get("token_ids") or ()]
    (thinking,) = (choice["thinking"] for choice in choices if "thinking" in choice)
    check(request, token_ids, thinking, events[-2]["usage"])
    history.answers[events[-2]["id"]] = events[-2]["usage"]["completion_tokens"]


def check(
    request: dict[str, Any], token_ids: list[int], thinking: dict[str, Any], usage: dict[str, Any]
) -> None:
    """Compare a response with its tokens, counted by their ids."""
    machine = BudgetStateMachine(TokenBudget(opened=True), MARKERS, VOCABULARY)
    for token in token_ids:
        machine.advance(token)
    assert thinking["tokens"] == machine.tokens
    assert usage["completion_tokens"] == len(token_ids)
    assert request["min_thinking_tokens"] <= machine.tokens <= request["max_thinking_tokens"]


async def trigger(
    event: str,
    rng: Random,
    replicas: list[ReplicaProcess],
    both: list[Gateway],
    history: ReplicaHistory,
    environment: dict[str, str],
) -> None:
    replica, gateway = rng.choice(replicas), rng.choice(both)
    match event:
        case "kill replica":
            await replica.end()
            await history.wait_for_tries(TRIES_BETWEEN_EVENTS)
            await replica.start()
        case "stop replica":
            assert replica.process is not None
            replica.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(4)  # longer than it takes to be found hanging
            replica.process.send_signal(signal.SIGCONT)
        case "cut off":
            replica.proxy.partitioned = True
            await asyncio.sleep(4)
            replica.proxy.partitioned = False
        case "slow down":
            replica.proxy.delay = 0.2
            await history.wait_for_tries(TRIES_BETWEEN_EVENTS)
            replica.proxy.delay = 0.0
        case "kill gateway":
            await gateway.end()
            await history.wait_for_tries(TRIES_BETWEEN_EVENTS)
            await gateway.start(environment)


@pytest.mark.parametrize("seed", [1])
async def test_failing_replicas_break_no_budget_and_lose_no_row(
    postgres: Cluster, seed: int
) -> None:
    url = postgres.create(f"replicas{seed}")
    most = TOKEN_COST * MAX_TOKENS * ANSWERS
    store, token = await create_ledger(url, most)
    environment = environment_of(url)
    history, rng = ReplicaHistory(), Random(seed)
    async with AsyncExitStack() as stack:
        replicas = [await start_replica(stack) for _ in range(3)]
        urls = [f"http://127.0.0.1:{replica.proxy.port}" for replica in replicas]
        both = await stack.enter_async_context(two_gateways(environment, SERVER.format(urls=urls)))
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=PATIENCE))
        clients = [
            asyncio.create_task(spend_all(number, http, both, history, bearer(token)))
            for number in range(CLIENTS)
        ]
        try:
            for event in rng.sample(EVENTS, len(EVENTS)):
                await history.wait_for_tries(TRIES_BETWEEN_EVENTS)
                await trigger(event, rng, replicas, both, history, environment)
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*clients)
        finally:
            for client in clients:
                client.cancel()
            results = await asyncio.gather(*clients, return_exceptions=True)
            errors = [error for error in results if isinstance(error, AssertionError)]
            if errors:
                raise errors[0]
        for gateway in both:
            gateway.send_signal(signal.SIGTERM)
            assert gateway.process is not None
            assert await asyncio.wait_for(gateway.process.wait(), PATIENCE) == 0

    rows = {row.id: row for row in await read_records(url)}
    assert len(history.answers) > ANSWERS // 2
    assert history.failures
    for name, tokens in history.answers.items():
        assert (rows[name].status, rows[name].completion_tokens) == (200, tokens)
    costs = [to_nanos(row.cost.total) for row in rows.values() if row.cost is not None]
    async with store.engine.connect() as connection:
        spent = await connection.scalar(select(func.sum(spend.c.nanos)))
        left = [
            await connection.scalar(select(func.count()).select_from(table))
            for table in (gateways, holds)
        ]
    await store.aclose()
    assert spent == sum(costs) <= to_nanos(most)
    assert left == [0, 0]


async def start_replica(stack: AsyncExitStack) -> ReplicaProcess:
    """Start a replica and its proxy."""
    port = free_port()
    proxy = await stack.enter_async_context(LossyProxy(port).serving())
    replica = ReplicaProcess(port, proxy)
    stack.push_async_callback(replica.end)
    await replica.start()
    return replica
