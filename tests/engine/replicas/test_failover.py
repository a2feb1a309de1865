"""Real replicas that are drained, killed and started again under a gateway."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proctor.server.engines.replicas.balancing.health import State
from tests.engine.client import CHAT, body
from tests.engine.gateway import Gateway, running_gateway
from tests.engine.replicas.process import (
    Replica,
    engine_settings,
    starting_replica,
    wait_until_ready,
)
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.engine, pytest.mark.busy]

QUESTION = "Start with 7, add 5, times 3. What are the last two digits?"
LONG = {
    "temperature": 0,
    "min_thinking_tokens": 1400,
    "max_thinking_tokens": 1400,
    "thinking": {"on_loop": "off"},
    "max_tokens": 1950,
}


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Two replicas, started side by side."""
    folder = tmp_path_factory.mktemp("replicas")
    with starting_replica(folder) as one, starting_replica(folder) as other:
        wait_until_ready(one)
        wait_until_ready(other)
        yield [one, other]


@pytest.fixture(scope="module")
def gateway(replicas: list[Replica]) -> Iterator[Gateway]:
    """A gateway over both."""
    settings = engine_settings([replica.url for replica in replicas])
    with running_gateway(**settings) as running:
        yield running


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE) as client:
        yield client


def requests(replica: Replica) -> int:
    """Return how many requests a replica has begun to answer, by its log."""
    return replica.log.read_text().count("POST /inference/v1/generate")


async def stream(
    http: httpx.AsyncClient, request: dict[str, Any], then: Callable[[], None] = lambda: None
) -> tuple[str, dict[str, Any]]:
    """Stream a request, and return its thinking as text and its account.

    Args:
        http: the client.
        request: the body.
        then: called when the thinking has begun.
    """
    account: dict[str, Any] = {}
    text, count = "", 0
    async with http.stream("POST", CHAT, json={**request, "stream": True}) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            count += 1
            if count == 2:
                await asyncio.to_thread(then)
            chunk = orjson.loads(line.removeprefix("data: "))
            assert "error" not in chunk, chunk
            for choice in chunk["choices"]:
                text += choice["delta"].get("reasoning_content") or ""
                account = choice.get("thinking", account)
    return text, account


async def test_a_request_whose_replica_is_killed_ends_as_if_nothing_had_happened(
    gateway: Gateway, replicas: list[Replica], http: httpx.AsyncClient, tmp_path: Path
) -> None:
    request = body(gateway, QUESTION, **LONG)
    killed: list[Replica] = []
    undisturbed = await stream(http, request)
    before = {replica.url: requests(replica) for replica in replicas}

    def kill() -> None:
        (running,) = (one for one in replicas if requests(one) > before[one.url])
        running.process.kill()
        killed.append(running)

    assert await stream(http, request, kill) == undisturbed
    assert undisturbed[1]["tokens"] == 1400
    assert undisturbed[1]["continuations"] > 1
    port = int(killed[0].url.rpartition(":")[2])
    with starting_replica(tmp_path, port=port) as again:
        wait_until_ready(again)
        await until_up(http, 2)


async def until_up(http: httpx.AsyncClient, count: int) -> None:
    """Wait until so many replicas are up or on trial."""
    async with asyncio.timeout(PATIENCE):
        while await replicas_in(http, State.UP, State.TRIAL) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def replicas_in(http: httpx.AsyncClient, *states: State) -> float:
    """Return how many replicas are in some states, by the gateway's metrics."""
    families = text_string_to_metric_families((await http.get("/metrics")).text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "proctor_replicas" and sample.labels["state"] in states
    )


async def test_sigterm_lets_running_requests_finish_and_sends_new_ones_away(
    gateway: Gateway, replicas: list[Replica], http: httpx.AsyncClient
) -> None:
    (left,) = (replica for replica in replicas if replica.process.is_running() and alive(replica))
    _, account = await stream(
        http, body(gateway, QUESTION, **LONG), lambda: left.process.send_signal(signal.SIGTERM)
    )
    assert account["tokens"] == 1400
    assert await asyncio.to_thread(left.process.wait, PATIENCE) == 0


def alive(replica: Replica) -> bool:
    """Return whether a replica answers."""
    try:
        return httpx.get(f"{replica.url}/health").status_code == 200
    except httpx.TransportError:
        return False
