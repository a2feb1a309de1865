"""`/metrics` beyond test_app.py: costs, the queue, the engine, the formats."""

import asyncio
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from proctor.server.api.metrics import expose
from proctor.server.engines.fake import FakeEngine, Script
from tests.server.harness import CHAT, Gate, body, client, running_server, with_timeout
from tests.waiting import PATIENCE

PRICES = {"prompt": "1", "thinking": "2", "answer": "4"}
OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


async def metric(http: httpx.AsyncClient, name: str, **labels: str) -> float | None:
    """Return the value of a sample, or None if there is no such series."""
    for family in parse_text((await http.get("/metrics")).text):
        for sample in family.samples:
            if sample.name == f"proctor_{name}" and sample.labels == labels:
                return float(sample.value)
    return None


async def test_costs_are_counted_by_tier_and_part() -> None:
    async with client(FakeEngine(Script(("abc",), "de")), prices=PRICES) as http:
        answers = [(await http.post(CHAT, json=body(budget_tier="low"))).json() for _ in range(2)]
        await http.post(CHAT, json=body(budget_tier="low", model="other"))
        spent = {
            part: await metric(http, "cost_usd_total", tier="low", part=part, key="")
            for part in ("prompt", "thinking", "answer")
        }
        count = await metric(http, "cost_per_answer_usd_count", tier="low")
        total = await metric(http, "cost_per_answer_usd_sum", tier="low")
        other = await metric(http, "cost_usd_total", tier="high", part="answer", key="")

    costs = [answer["cost"] for answer in answers]
    for part, counted in spent.items():
        assert counted == pytest.approx(sum(cost[part] for cost in costs))
    assert count == 2
    assert total == pytest.approx(sum(cost["total"] for cost in costs))
    assert other == 0


async def test_costs_by_compute_time_are_counted() -> None:
    machine = {"currency": "EUR", "per_hour": "3600000"}
    async with client(FakeEngine(), machine=machine) as http:
        cost = (await http.post(CHAT, json=body())).json()["cost"]
        total = await metric(http, "cost_per_answer_eur_sum", tier="custom")
        thinking = await metric(http, "cost_eur_total", tier="custom", part="thinking", key="")

    assert total == pytest.approx(cost["total"])
    assert thinking == pytest.approx(cost["thinking"])


async def test_without_a_price_no_cost_is_counted() -> None:
    async with client(FakeEngine()) as http:
        await http.post(CHAT, json=body())
        text = (await http.get("/metrics")).text

    assert "proctor_cost_usd_total{" not in text
    assert "proctor_cost_per_answer_usd_count{" not in text


async def test_a_failed_answer_is_charged_but_not_counted_as_an_answer() -> None:
    engine = FakeEngine(Script(("a" * 10,), "42"), die_after=4)
    async with client(engine, prices=PRICES) as http:
        response = await http.post(CHAT, json=body())
        thinking = await metric(http, "cost_usd_total", tier="custom", part="thinking", key="")
        count = await metric(http, "cost_per_answer_usd_count", tier="custom")

    assert response.status_code == 503
    assert thinking == pytest.approx(4 * 2e-6)
    assert count is None


async def test_metrics_show_the_queue_and_the_engine() -> None:
    gate = Gate(1)
    engine = FakeEngine(before_token=gate)
    async with (
        running_server(engine, limits={"max_running": 1}) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        asking = [asyncio.create_task(http.post(CHAT, json=body())) for _ in range(3)]
        await with_timeout(gate.reached.wait())
        async with asyncio.timeout(PATIENCE):
            while await metric(http, "waiting") != 2:
                pass
        running = await metric(http, "running")
        gate.opened.set()
        await with_timeout(asyncio.gather(*asking))
        after = await metric(http, "running"), await metric(http, "waiting")
        queued = await metric(http, "queue_seconds_count")
        up = await metric(http, "engine_up"), await metric(http, "engine_starts_total")

    assert running == 1
    assert after == (0.0, 0.0)
    assert queued == 3
    assert up == (1, 1)


async def test_metrics_show_the_maximum_of_each_tier() -> None:
    tiers: list[dict[str, Any]] = [
        {"name": "none", "max_tokens": 0},
        {"name": "low", "max_tokens": 9},
        {"name": "high", "max_tokens": -1},
    ]
    words = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
    named = {
        "efforts": dict.fromkeys(words, "high"),
        "router": {"levels": dict.fromkeys(("none", "low", "medium", "high"), "low")},
    }
    async with client(FakeEngine(), tiers=tiers, **named) as http:
        caps = [await metric(http, "tier_max_thinking_tokens", tier=tier["name"]) for tier in tiers]

    assert caps == [0, 9, float("inf")]


async def test_counters_start_at_zero() -> None:
    async with client(FakeEngine()) as http:
        assert await metric(http, "loops_total", action="close") == 0
        assert await metric(http, "forced_tokens_total", kind="wrap_up") == 0
        assert await metric(http, "ledger_rows_total", fate="dropped") == 0
        assert await metric(http, "continuations_total", tier="max") == 0


async def test_both_formats_have_the_same_samples() -> None:
    async with client(FakeEngine()) as http:
        await http.post(CHAT, json=body())
        plain = await http.get("/metrics")
        opened = await http.get("/metrics", headers=OPENMETRICS)

    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert opened.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    names = [
        {
            (sample.name, *sample.labels.items())
            for family in families
            for sample in family.samples
            if sample.name.startswith("proctor_") and not sample.name.endswith("_created")
        }
        for families in (parse_text(plain.text), parse_openmetrics(opened.text))
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("accept", ["", OPENMETRICS["accept"], "application/openmetrics-text"])
def test_the_names_of_vllms_metrics_are_unchanged(accept: str) -> None:
    registry = CollectorRegistry()
    Gauge("vllm:num_requests_running", "Running.", registry=registry)

    body, _ = expose(registry, accept)

    assert b"\nvllm:num_requests_running 0.0\n" in body


async def test_clients_cannot_create_label_values() -> None:
    headers = dict.fromkeys(("authorization", "x-request-id", "user-agent"), "strange")
    requests: list[dict[str, Any]] = [
        {name: "strange"}
        for name in ("budget_tier", "model", "reasoning_effort", "user", "stop", "think")
    ]
    async with client(FakeEngine(), prices=PRICES) as http:
        for fields in requests:
            await http.post(CHAT, json=body(**fields), headers=headers)
        await http.get("/strange", headers=headers)
        text = (await http.get("/metrics")).text

    assert "strange" not in text
    assert 'proctor_requests_total{end_reason="natural",status="200",tier="custom"}' in text
