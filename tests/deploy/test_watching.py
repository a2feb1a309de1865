"""Every query of every dashboard and every rule, over what a real Prometheus and a real PostgreSQL
have of a real run."""

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
from tests.deploy.prometheus import Prometheus, scraping
from tests.deploy.shipped import DEPLOY, Query, alerts, always, queries, rules
from tests.engine.gateway import Gateway
from tests.server.accounting.ledger.postgres import USER, Cluster
from tests.server.harness import CHAT, body, serve_app, settings
from tests.waiting import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATABASE = "watched"
PRICES = {"prompt": "1", "cached_prompt": "0.5", "thinking": "2", "answer": "4"}
HELD = "hold on"
CIRCLES = "go round"
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
    {"messages": [{"role": "user", "content": CIRCLES}], "thinking": {"on_loop": "nudge"}},
    {"model": "other"},
]
ENGINE_UP = 'proctor_engine_up{job="proctor"}'


@dataclass(frozen=True)
class Watched:
    """A gateway that was used, and what watched it.

    Attributes:
        reader: the ledger, as Grafana sees it.
    """

    prometheus: Prometheus
    reader: asyncpg.Connection


class Brake:
    """Holds up the requests that say so."""

    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def __call__(self, job: Job, position: int) -> None:
        if HELD.encode() in _prompt(job):
            await self.released.wait()


def _prompt(job: Job) -> bytes:
    return bytes(token for token in job.prompt_ids if token < 256)


def _script(job: Job) -> Script:
    if CIRCLES.encode() in _prompt(job):
        return Script(("Let me check it once more. " * 100,))
    return Script(("Let me see. It is 42, or is it not?",))


async def use(http: httpx.AsyncClient, metrics: httpx.AsyncClient, brake: Brake) -> None:
    """One of each kind of request, with feedback for what is answered, and one too many."""
    for fields in REQUESTS:
        asked = body(messages=[{"role": "user", "content": "Is it 42?"}]) | fields
        response = await http.post(CHAT, json=asked)
        if response.is_success and not fields.get("stream"):
            graded = {"request_id": response.json()["id"], "correct": True}
            assert (await http.post("/v1/feedback", json=graded)).is_success
    brake.released.clear()
    held = body(messages=[{"role": "user", "content": HELD}])
    running = [asyncio.create_task(http.post(CHAT, json=held)) for _ in range(2)]
    async with asyncio.timeout(PATIENCE):
        while "proctor_waiting 1.0" not in (await metrics.get("/metrics")).text:
            pass
    assert (await http.post(CHAT, json=held)).status_code == 429
    brake.released.set()
    await asyncio.gather(*running)


async def _scraped(prometheus: Prometheus) -> None:
    """Return once Prometheus has seen what is there now."""
    (had,) = await prometheus.until(f"timestamp({ENGINE_UP})")
    await prometheus.until(f"timestamp({ENGINE_UP}) > {had.value + 1}")


def _add_reader(cluster: Cluster) -> None:
    """Make Grafana's role, as the database's container does."""
    server = {"PGHOST": "127.0.0.1", "PGPORT": str(cluster.port)}
    given = {
        "POSTGRES_USER": USER,
        "POSTGRES_DB": DATABASE,
        "GRAFANA_DATABASE_PASSWORD": "it's a secret",
        "PATH": f"{cluster.binaries}:{os.environ['PATH']}",
    }
    script = ["sh", str(DEPLOY / "postgres" / "reader.sh")]
    done = subprocess.run(script, env=server | given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(
    postgres: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Watched]:
    """Used twice, with a scrape between: rates need two samples that differ."""
    ledger = postgres.create(DATABASE)
    _add_reader(postgres)
    brake = Brake()
    token = make_token()
    given = settings(
        prices=PRICES,
        ledger={"url": ledger},
        limits={"max_running": 1, "max_waiting": 1},
        keys=[{"name": "team", "hash": f"{id_of(token)}:{hash_token(token)}"}],
        auth={"admin_port": 0},
    )
    tracing = Tracing(TracerProvider(shutdown_on_exit=False))
    engine = FakeEngine(_script, cached_tokens=1, before_token=brake)
    app = create_app(given, lambda: engine, tracing)
    async with (
        serve_app(app) as url,
        serve_app(app.state.metrics_endpoint.standalone_app()) as apart,
        httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http,
        httpx.AsyncClient(base_url=apart) as metrics,
        scraping(apart, tmp_path_factory.mktemp("prometheus")) as prometheus,
    ):
        http.headers["authorization"] = f"Bearer {token}"
        await app.state.supervisor.loaded()
        for _ in range(2):
            await use(http, metrics, brake)
            await _scraped(prometheus)
        reader = await asyncpg.connect(ledger.replace(f"//{USER}@", "//grafana@"))
        try:
            yield Watched(prometheus, reader)
        finally:
            await reader.close()


def _of(kind: str, *, vllm: bool = False) -> list[Any]:
    found = [query for query in queries() if query.kind == kind and query.of_vllm is vllm]
    return [pytest.param(query, id=query.panel) for query in found]


@pytest.mark.parametrize("query", _of("prometheus"))
async def test_a_panel_has_data(watched: Watched, query: Query) -> None:
    samples = await watched.prometheus.until(query.text)

    assert any(query.labels <= {*sample.labels} for sample in samples), "no such labels"


@pytest.mark.parametrize("query", _of("grafana-postgresql-datasource"))
async def test_a_panel_of_the_ledger_has_data(watched: Watched, query: Query) -> None:
    rows = await watched.reader.fetch(query.text)

    assert rows
    assert all(value is not None for row in rows for value in row.values())
    if '"time"' in query.text:  # what Grafana wants of a series
        assert {"time", "metric", "value"} == {*rows[0].keys()}


async def test_grafana_reads_rows_and_nothing_else(watched: Watched) -> None:
    for forbidden in (
        "SELECT * FROM texts",
        "DELETE FROM requests",
        "UPDATE requests SET score = 1",
        "CREATE TABLE mine (id int)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await watched.reader.execute(forbidden)


async def test_cost_per_correct_answer_is_what_the_answers_cost(watched: Watched) -> None:
    (query,) = [found for found in queries() if "per correct answer, by tier" in found.panel]

    rows = {row["tier"]: row for row in await watched.reader.fetch(query.text)}

    graded = await watched.reader.fetch("SELECT * FROM requests WHERE score IS NOT NULL")
    low = [row for row in graded if row["tier"] == "low"]
    spent = sum(row["cost_prompt"] + row["cost_thinking"] + row["cost_answer"] for row in low)
    assert rows["low"]["graded"] == len(low) > 0
    assert float(rows["low"]["cost per correct answer"]) == pytest.approx(float(spent) / len(low))


async def test_spend_is_known_by_key(watched: Watched) -> None:
    (sample,) = await watched.prometheus.query(
        'sum by (key) (proctor_cost_usd_total{key!="", part="answer"})'
    )

    assert sample.labels == {"key": "team"}
    assert sample.value > 0


async def test_the_metrics_and_the_ledger_agree_on_what_was_spent(watched: Watched) -> None:
    async def spent(part: str) -> float:
        (sample,) = await watched.prometheus.query(f'sum(proctor_cost_usd_total{{part="{part}"}})')
        return sample.value

    for part in ("prompt", "thinking", "answer"):
        written = await watched.reader.fetchval(f"SELECT sum(cost_{part}) FROM requests")
        assert await spent(part) == pytest.approx(float(written))


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule["alert"]) for rule in alerts()])
async def test_an_alert_looks_at_data(watched: Watched, rule: dict[str, Any]) -> None:
    assert await watched.prometheus.until(always(rule["expr"]))


async def test_rules_are_evaluated_without_an_error(watched: Watched) -> None:
    for rule in rules():
        if "record" in rule:
            await watched.prometheus.until(rule["record"])
    groups = (await watched.prometheus.get("rules"))["groups"]

    told = [rule for group in groups for rule in group["rules"]]
    assert len(told) == len(rules())
    assert {(rule["name"], rule["health"], rule.get("lastError", "")) for rule in told} == {
        (rule.get("alert") or rule["record"], "ok", "") for rule in rules()
    }


async def test_samples_lead_to_their_traces(watched: Watched) -> None:
    asked = {"query": "proctor_request_seconds_bucket", "start": "0", "end": "9999999999"}

    found = await watched.prometheus.get("query_exemplars", **asked)

    assert found
    assert all(len(one["exemplars"][0]["labels"]["trace_id"]) == 32 for one in found)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched_engine(
    vllm_gateway: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Prometheus]:
    """The real engine, used twice with a scrape between."""
    asked = body(model="proctor-demo", max_thinking_tokens=16, max_tokens=64)
    async with (
        httpx.AsyncClient(base_url=vllm_gateway.url, timeout=PATIENCE) as http,
        scraping(vllm_gateway.url, tmp_path_factory.mktemp("prometheus")) as prometheus,
    ):
        for _ in range(2):
            await asyncio.gather(*(http.post(CHAT, json=asked) for _ in range(3)))
            await _scraped(prometheus)
        yield prometheus


@pytest.mark.parametrize("query", _of("prometheus", vllm=True))
async def test_a_panel_of_the_engine_has_data(watched_engine: Prometheus, query: Query) -> None:
    assert await watched_engine.until(query.text)
