"""All queries of the dashboards, and all rules, on a real Prometheus and a real PostgreSQL that
monitored a running gateway."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from opentelemetry.sdk.trace import TracerProvider

from proctor.server.app import create_app
from proctor.server.auth.api_key import hash_token, id_of, make_token
from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.telemetry.tracing import Tracing
from tests.deploy.monitoring import DEPLOY, Query, alerts, queries, rules, with_bool_modifier
from tests.deploy.prometheus import Prometheus, run_prometheus
from tests.engine.gateway import Gateway
from tests.server.accounting.ledger.postgres import USER, Cluster
from tests.server.harness import CHAT, body, serve_app, settings
from tests.waiting import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATABASE = "watched"
PRICES = {"prompt": "1", "cached_prompt": "0.5", "thinking": "2", "answer": "4"}
HELD_PROMPT = "hold on"
LOOPING_PROMPT = "go round"
REQUESTS: list[dict[str, Any]] = [
    {"budget_tier": "none"},
    {"budget_tier": "low"},
    {"budget_tier": "medium", "n": 2, "stream": True},
    {"budget_tier": "high"},
    {"budget_tier": "max", "stream": True},
    {"budget_tier": "low", "max_tokens": 40},
    {"budget_tier": "auto"},
    {"reasoning_effort": "low"},
    {"max_thinking_tokens": 3, "thinking": {"wrap_up_text": "So"}},
    {"max_thinking_tokens": 10**6},
    {"thinking": {"continuations": 2}},
    {"messages": [{"role": "user", "content": LOOPING_PROMPT}], "thinking": {"on_loop": "nudge"}},
    {"session": {"id": "agent", "max_thinking_tokens": 3}},
    {"session": {"id": "agent", "max_requests": 1}},
    {"model": "other"},
]
ENGINE_UP = 'proctor_engine_up{job="proctor"}'


@dataclass(frozen=True)
class MonitoredGateway:
    """A gateway that has served requests, and the servers that monitor it.

    Attributes:
        reader: a connection to the ledger with the role of Grafana.
    """

    prometheus: Prometheus
    reader: asyncpg.Connection


class Gate:
    """Blocks the requests whose prompt contains `HELD_PROMPT`."""

    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def __call__(self, job: Job, position: int) -> None:
        if HELD_PROMPT.encode() in _prompt(job):
            await self.released.wait()


def _prompt(job: Job) -> bytes:
    return bytes(token for token in job.prompt_ids if token < 256)


def _script(job: Job) -> Script:
    if LOOPING_PROMPT.encode() in _prompt(job):
        return Script(("Let me check it once more. " * 100,))
    return Script(("Let me see. It is 42, or is it not?",))


async def send_requests(http: httpx.AsyncClient, metrics: httpx.AsyncClient, gate: Gate) -> None:
    """Send one request of each kind, with feedback for the answers, and one that is refused."""
    for fields in REQUESTS:
        request = body(messages=[{"role": "user", "content": "Is it 42?"}]) | fields
        response = await http.post(CHAT, json=request)
        if response.is_success and not fields.get("stream"):
            feedback = {"request_id": response.json()["id"], "correct": True}
            assert (await http.post("/v1/feedback", json=feedback)).is_success
    gate.released.clear()
    held = body(messages=[{"role": "user", "content": HELD_PROMPT}])
    running = [asyncio.create_task(http.post(CHAT, json=held)) for _ in range(2)]
    async with asyncio.timeout(PATIENCE):
        while "proctor_waiting 1.0" not in (await metrics.get("/metrics")).text:
            pass
    assert (await http.post(CHAT, json=held)).status_code == 429
    gate.released.set()
    await asyncio.gather(*running)


async def _wait_for_scrape(prometheus: Prometheus) -> None:
    """Wait until Prometheus has scraped the current metrics."""
    (last,) = await prometheus.wait_for(f"timestamp({ENGINE_UP})")
    await prometheus.wait_for(f"timestamp({ENGINE_UP}) > {last.value + 1}")


def _add_reader(cluster: Cluster) -> None:
    """Create Grafana's role, as the database's container does."""
    server = {"PGHOST": "127.0.0.1", "PGPORT": str(cluster.port)}
    variables = {
        "POSTGRES_USER": USER,
        "POSTGRES_DB": DATABASE,
        "GRAFANA_DATABASE_PASSWORD": "it's a secret",
        "PATH": f"{cluster.binaries}:{os.environ['PATH']}",
    }
    script = ["sh", str(DEPLOY / "postgres" / "reader.sh")]
    done = subprocess.run(
        script, env=server | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def monitored(
    postgres: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[MonitoredGateway]:
    """A gateway used twice, with a scrape between: rates need two samples that differ."""
    ledger = postgres.create(DATABASE)
    _add_reader(postgres)
    gate = Gate()
    token = make_token()
    server_settings = settings(
        prices=PRICES,
        ledger={"url": ledger},
        limits={"max_running": 1, "max_waiting": 1},
        keys=[{"name": "team", "hash": f"{id_of(token)}:{hash_token(token)}"}],
        auth={"admin_port": 0},
    )
    tracing = Tracing(TracerProvider(shutdown_on_exit=False))
    engine = FakeEngine(_script, cached_tokens=1, before_token=gate)
    app = create_app(server_settings, lambda: engine, tracing)
    async with (
        serve_app(app) as url,
        serve_app(app.state.metrics_endpoint.standalone_app()) as metrics_url,
        httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http,
        httpx.AsyncClient(base_url=metrics_url) as metrics,
        run_prometheus(metrics_url, tmp_path_factory.mktemp("prometheus")) as prometheus,
    ):
        http.headers["authorization"] = f"Bearer {token}"
        await app.state.supervisor.loaded()
        for _ in range(2):
            await send_requests(http, metrics, gate)
            await _wait_for_scrape(prometheus)
        reader = await asyncpg.connect(ledger.replace(f"//{USER}@", "//grafana@"))
        try:
            yield MonitoredGateway(prometheus, reader)
        finally:
            await reader.close()


def _query_params(kind: str, *, vllm: bool = False) -> list[Any]:
    found = [query for query in queries() if query.kind == kind and query.of_vllm is vllm]
    return [pytest.param(query, id=query.panel) for query in found]


@pytest.mark.parametrize("query", _query_params("prometheus"))
async def test_a_panel_has_data(monitored: MonitoredGateway, query: Query) -> None:
    samples = await monitored.prometheus.wait_for(query.text)

    assert any(query.labels <= {*sample.labels} for sample in samples), "no such labels"


@pytest.mark.parametrize("query", _query_params("grafana-postgresql-datasource"))
async def test_a_panel_of_the_ledger_has_data(monitored: MonitoredGateway, query: Query) -> None:
    rows = await monitored.reader.fetch(query.text)

    assert rows
    assert all(value is not None for row in rows for value in row.values())
    if '"time"' in query.text:  # the columns that Grafana requires of a series
        assert {"time", "metric", "value"} == {*rows[0].keys()}


async def test_grafana_can_neither_read_texts_nor_write(monitored: MonitoredGateway) -> None:
    for forbidden in (
        "SELECT * FROM texts",
        "DELETE FROM requests",
        "UPDATE requests SET score = 1",
        "CREATE TABLE mine (id int)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await monitored.reader.execute(forbidden)


async def test_cost_per_correct_answer_agrees_with_the_ledger(monitored: MonitoredGateway) -> None:
    (query,) = [found for found in queries() if "per correct answer, by tier" in found.panel]

    rows = {row["tier"]: row for row in await monitored.reader.fetch(query.text)}

    graded = await monitored.reader.fetch("SELECT * FROM requests WHERE score IS NOT NULL")
    low = [row for row in graded if row["tier"] == "low"]
    spent = sum(row["cost_prompt"] + row["cost_thinking"] + row["cost_answer"] for row in low)
    assert rows["low"]["graded"] == len(low) > 0
    assert float(rows["low"]["cost per correct answer"]) == pytest.approx(float(spent) / len(low))


async def test_cost_metrics_are_labelled_by_key(monitored: MonitoredGateway) -> None:
    (sample,) = await monitored.prometheus.query(
        'sum by (key) (proctor_cost_usd_total{key!="", part="answer"})'
    )

    assert sample.labels == {"key": "team"}
    assert sample.value > 0


async def test_metrics_and_ledger_agree_on_the_cost(monitored: MonitoredGateway) -> None:
    async def spent(part: str) -> float:
        (sample,) = await monitored.prometheus.query(
            f'sum(proctor_cost_usd_total{{part="{part}"}})'
        )
        return sample.value

    for part in ("prompt", "thinking", "answer"):
        recorded = await monitored.reader.fetchval(f"SELECT sum(cost_{part}) FROM requests")
        assert await spent(part) == pytest.approx(float(recorded))


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(rule, id=rule["alert"])
        for rule in alerts()
        if "proctor_model_up" not in rule["expr"]  # of servers with several models
    ],
)
async def test_an_alert_expression_has_data(
    monitored: MonitoredGateway, rule: dict[str, Any]
) -> None:
    assert await monitored.prometheus.wait_for(with_bool_modifier(rule["expr"]))


async def test_rules_are_evaluated_without_an_error(monitored: MonitoredGateway) -> None:
    for rule in rules():
        if "record" in rule:
            await monitored.prometheus.wait_for(rule["record"])
    groups = (await monitored.prometheus.get("rules"))["groups"]

    evaluated = [rule for group in groups for rule in group["rules"]]
    assert len(evaluated) == len(rules())
    assert {(rule["name"], rule["health"], rule.get("lastError", "")) for rule in evaluated} == {
        (rule.get("alert") or rule["record"], "ok", "") for rule in rules()
    }


async def test_exemplars_carry_trace_ids(monitored: MonitoredGateway) -> None:
    request = {"query": "proctor_request_seconds_bucket", "start": "0", "end": "9999999999"}

    found = await monitored.prometheus.get("query_exemplars", **request)

    assert found
    assert all(len(series["exemplars"][0]["labels"]["trace_id"]) == 32 for series in found)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def monitored_engine(
    vllm_gateway: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Prometheus]:
    """A server with the real engine, used twice with a scrape between."""
    request = body(model="proctor-demo", max_thinking_tokens=16, max_tokens=64)
    async with (
        httpx.AsyncClient(base_url=vllm_gateway.url, timeout=PATIENCE) as http,
        run_prometheus(vllm_gateway.url, tmp_path_factory.mktemp("prometheus")) as prometheus,
    ):
        for _ in range(2):
            await asyncio.gather(*(http.post(CHAT, json=request) for _ in range(3)))
            await _wait_for_scrape(prometheus)
        yield prometheus


@pytest.mark.parametrize("query", _query_params("prometheus", vllm=True))
async def test_a_panel_of_the_engine_has_data(monitored_engine: Prometheus, query: Query) -> None:
    assert await monitored_engine.wait_for(query.text)
