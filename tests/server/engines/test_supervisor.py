"""The supervisor restarts engines that die or hang."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from proctor.server.app import create_app
from proctor.server.engines import supervisor
from proctor.server.engines.base import Engine
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.errors import EngineUnavailable
from proctor.server.generation.runner import TaskPool
from tests.server.harness import CHAT, Gate, body, parse_events, settings, with_timeout

STALL = {"stall_seconds": 0.05}


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 0.01)


class EngineSequence:
    """An engine factory that returns the given engines in order, or raises."""

    def __init__(self, *engines: FakeEngine | Exception) -> None:
        self._left = list(engines)
        self.made = 0

    def __call__(self) -> Engine:
        self.made += 1
        engine = self._left.pop(0)
        if isinstance(engine, Exception):
            raise engine
        return engine


@asynccontextmanager
async def supervised_server(
    engines: EngineSequence,
) -> AsyncIterator[tuple[httpx.AsyncClient, EngineSupervisor]]:
    app = create_app(settings(limits=STALL), engines)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        await with_timeout(app.state.supervisor.loaded())
        yield http, app.state.supervisor


async def until_ready(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(10):
        while True:
            if (await http.get("/ready")).status_code == 200:
                return
            await asyncio.sleep(0.01)


async def test_a_dead_engine_is_restarted() -> None:
    engines = EngineSequence(FakeEngine(Script(("abc",), "d"), die_after=2), FakeEngine())
    async with supervised_server(engines) as (http, _):
        broken = await http.post(CHAT, json=body(stream=True))
        refused = await http.get("/ready")
        await until_ready(http)
        again = await http.post(CHAT, json=body())

    assert parse_events(broken.text)[-1].name == "error"
    assert refused.status_code == 503
    assert again.status_code == 200
    assert engines.made == 2


async def test_a_hanging_engine_is_restarted() -> None:
    gate = Gate(2)
    hanging = FakeEngine(Script(("abc",), "d"), before_token=gate)
    engines = EngineSequence(hanging, FakeEngine())
    async with supervised_server(engines) as (http, _):
        stuck = asyncio.create_task(http.post(CHAT, json=body(stream=True)))
        await with_timeout(gate.reached.wait())
        hanging.hang()
        gate.opened.set()
        ended = await with_timeout(stuck)
        await until_ready(http)
        again = await http.post(CHAT, json=body())

    assert parse_events(ended.text)[-1].name == "error"
    assert again.status_code == 200


async def test_restarting_is_retried_until_the_engine_loads(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fault = OSError("no memory")
    engines = EngineSequence(FakeEngine(), fault, fault, FakeEngine())
    async with supervised_server(engines) as (http, host):
        await host.engine.aclose()  # a closed engine counts as dead
        assert (await http.get("/ready")).status_code == 503
        await until_ready(http)

    assert engines.made == 4
    assert "no memory" in caplog.text


async def test_a_stopping_server_restarts_nothing() -> None:
    engines = EngineSequence(FakeEngine(), FakeEngine())
    async with supervised_server(engines) as (_, host):
        pass
    await asyncio.sleep(0.05)

    assert engines.made == 1
    with pytest.raises(RuntimeError):
        await host.engine.health()


class SlowWarmUpEngine(FakeEngine):
    """An engine whose warm-up blocks until `warm` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.warming = asyncio.Event()
        self.warm = asyncio.Event()

    async def warm_up(self) -> None:
        self.warming.set()
        await self.warm.wait()
        await self.health()


@asynccontextmanager
async def loading_server(
    engines: EngineSequence,
) -> AsyncIterator[tuple[httpx.AsyncClient, EngineSupervisor]]:
    app = create_app(settings(limits=STALL), engines)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        yield http, app.state.supervisor


async def test_requests_are_refused_until_the_engine_is_warm() -> None:
    engine = SlowWarmUpEngine()
    async with loading_server(EngineSequence(engine)) as (http, host):
        await with_timeout(engine.warming.wait())
        early = await http.get("/ready")
        refused = await http.post(CHAT, json=body())
        engine.warm.set()
        await with_timeout(host.loaded())
        answer = await http.post(CHAT, json=body())

    assert (early.status_code, refused.status_code) == (503, 503)
    assert refused.headers["retry-after"]
    assert answer.status_code == 200


async def test_an_engine_that_hangs_in_warm_up_has_failed_to_load() -> None:
    engine = SlowWarmUpEngine()
    async with loading_server(EngineSequence(engine)) as (http, host):
        await with_timeout(engine.warming.wait())
        engine.hang()
        with pytest.raises(EngineUnavailable):
            await with_timeout(host.loaded())
        refused = await http.get("/ready")

    assert refused.status_code == 503
    assert "failed to load" in refused.json()["error"]["message"]


async def test_a_restarted_engine_is_warmed_up() -> None:
    again = SlowWarmUpEngine()
    async with supervised_server(
        EngineSequence(FakeEngine(Script(("abc",), "d"), die_after=2), again)
    ) as (http, _):
        await http.post(CHAT, json=body())
        await with_timeout(again.warming.wait())
        refused = await http.get("/ready")
        again.warm.set()
        await until_ready(http)

    assert refused.status_code == 503


async def test_stopping_during_warm_up_closes_the_engine() -> None:
    engine = SlowWarmUpEngine()
    async with loading_server(EngineSequence(engine)):
        await with_timeout(engine.warming.wait())

    with pytest.raises(EngineUnavailable):
        await engine.health()


@asynccontextmanager
async def blocked_server(gate: Gate) -> AsyncIterator[tuple[httpx.AsyncClient, TaskPool]]:
    app = create_app(settings(), lambda: FakeEngine(before_token=gate))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        await with_timeout(app.state.supervisor.loaded())
        yield http, app.state.task_pools


async def test_requests_unanswered_at_the_end_of_the_grace_period_get_a_503() -> None:
    gate = Gate(2)
    async with blocked_server(gate) as (http, task_pool):
        asking = asyncio.create_task(http.post(CHAT, json=body()))
        await with_timeout(gate.reached.wait())
        task_pool.end()
        refused = await with_timeout(asking)

    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert "shutting down" in refused.json()["error"]["message"]


async def test_streams_get_an_error_event_at_the_end_of_the_grace_period() -> None:
    gate = Gate(2)
    async with blocked_server(gate) as (http, task_pool):
        asking = asyncio.create_task(http.post(CHAT, json=body(stream=True)))
        await with_timeout(gate.reached.wait())
        task_pool.end()
        streamed = await with_timeout(asking)
        metrics = (await http.get("/metrics")).text

    *earlier, last = parse_events(streamed.text)
    assert earlier
    assert last.name == "error"
    assert last.data["error"]["type"] == "server_error"
    assert "shutting down" in last.data["error"]["message"]
    assert (
        'proctor_requests_total{end_reason="cancelled",status="503",tier="custom"} 1.0' in metrics
    )
