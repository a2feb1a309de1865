import asyncio
import threading
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proctor.server.app import create_app
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.transport.middleware import request_id
from tests.server.harness import CHAT, body, client, with_timeout


async def test_health_answers_while_the_model_loads() -> None:
    may_load = threading.Event()

    def load() -> Engine:
        assert may_load.wait(10)
        return FakeEngine()

    app = create_app(Settings(), load)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        for method in ("GET", "HEAD"):
            assert (await http.request(method, "/health")).status_code == 200
            assert (await http.request(method, "/ready")).status_code == 503
        for loading in (await http.get("/v1/models"), await http.post(CHAT, json=body())):
            assert loading.status_code == 503
            assert int(loading.headers["retry-after"]) > 0
        metrics = (await http.get("/metrics")).text
        assert 'proctor_rejected_total{reason="unavailable"} 2.0' in metrics  # no probes
        may_load.set()
        await with_timeout(app.state.supervisor.loaded())
        assert (await http.get("/ready")).status_code == 200
        assert (await http.post(CHAT, json=body())).status_code == 200


async def test_a_model_that_fails_to_load(caplog: pytest.LogCaptureFixture) -> None:
    def load() -> Engine:
        raise ValueError("no weights at /secret/path")

    app = create_app(Settings(), load)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        with pytest.raises(ValueError, match="no weights"):
            await with_timeout(app.state.supervisor.loaded())
        ready = await http.get("/ready")
        health = await http.get("/health")

    assert (ready.status_code, health.status_code) == (503, 200)
    assert "secret" not in ready.text
    assert "no weights" in caplog.text


async def test_a_server_told_to_stop_does_not_wait_for_the_model() -> None:
    may_load = threading.Event()

    def load() -> Engine:
        may_load.wait(10)
        return FakeEngine()

    app = create_app(Settings(), load)
    async with app.router.lifespan_context(app):
        waiting = asyncio.ensure_future(app.state.supervisor.loaded())
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await with_timeout(waiting)
    may_load.set()


async def test_the_engine_is_closed_with_the_server() -> None:
    engine = FakeEngine()

    async with client(engine):
        await engine.health()

    with pytest.raises(RuntimeError):
        await engine.health()


async def test_models() -> None:
    async with client(FakeEngine(context_length=99)) as http:
        models = (await http.get("/v1/models")).json()

    assert models["object"] == "list"
    assert [(model["id"], model["max_model_len"]) for model in models["data"]] == [("fake", 99)]


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [("abc-1.2:3_X", "abc-1.2:3_X"), ("a b\n<é>c", "abc"), ("x" * 500, "x" * 128)],
)
def test_a_request_id_is_made_safe(sent: str, echoed: str) -> None:
    assert request_id(sent) == echoed


async def test_every_response_has_a_request_id() -> None:
    async with client(FakeEngine()) as http:
        mine = await http.get("/health", headers={"x-request-id": "mine"})
        others = [(await http.get("/nowhere")).headers["x-request-id"] for _ in range(2)]

    assert mine.headers["x-request-id"] == "mine"
    assert len({*others, ""}) == 3


async def test_the_openapi_document_has_the_fields() -> None:
    async with client(FakeEngine()) as http:
        described = (await http.get("/openapi.json")).json()

    request = described["components"]["schemas"]["ChatRequest"]
    assert "max_thinking_tokens" in request["properties"]
    assert CHAT in described["paths"]
    assert not any(
        "422" in operation["responses"]
        for path in described["paths"].values()
        for operation in path.values()
    )


def samples(exposition: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name.startswith("proctor_")
    }


async def test_metrics() -> None:
    engine = FakeEngine(Script(("aa",), "bbb"))
    requests: list[dict[str, Any]] = [
        {},
        {"max_thinking_tokens": 1, "stream": True},
        {"thinking": {"continuations": 2}},
        {"max_thinking_tokens": 10**6},
        {"n": -1},
        {"model": "other"},
    ]

    async with client(engine) as http:
        for fields in requests:
            await http.post(CHAT, json=body(**fields))
        seen = samples((await http.get("/metrics")).text)

    def value(name: str, **labels: str) -> float:
        return seen["proctor_" + name, tuple(sorted(labels.items()))]

    answered = {"tier": "custom", "status": "200"}
    assert value("requests_total", **answered, end_reason="natural") == 3
    assert value("requests_total", **answered, end_reason="max") == 1
    assert value("requests_total", tier="unresolved", status="400", end_reason="none") == 1
    assert value("thinking_tokens_sum", tier="custom", end_reason="natural") == 2 + 14 + 2
    assert value("thinking_tokens_sum", tier="custom", end_reason="max") == 1
    assert value("answer_tokens_sum", tier="custom") == 4 * 3
    assert value("continuations_total", tier="custom") == 2
    assert value("forced_tokens_total", kind="continuation") == 8
    assert value("forced_tokens_total", kind="marker") == 1
    assert value("forced_tokens_total", kind="wrap_up") == 0
    assert value("budget_clamped_total") == 1
    assert value("rejected_total", reason="bad_request") == 1
    assert value("rejected_total", reason="unknown_model") == 1
    assert value("in_flight") == 0
    assert value("request_seconds_count", tier="custom") == 4
    assert value("request_seconds_count", tier="unresolved") == 2
    assert value("time_to_first_reasoning_seconds_count") == 4
    assert value("time_to_first_answer_seconds_count") == 4


async def test_metrics_include_those_of_the_process() -> None:
    async with client(FakeEngine()) as http:
        assert "python_info" in (await http.get("/metrics")).text
