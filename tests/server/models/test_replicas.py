"""Two models behind one gateway, each over replicas of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

pytest.importorskip("vllm", reason="the engine over replicas uses vLLM's sampling parameters")

from proctor.server.app import create_app
from proctor.server.config.settings import Settings
from tests.server.engines.replicas.local import engine_over
from tests.server.engines.replicas.scripted_replica import ScriptedReplica
from tests.server.harness import CHAT, asgi_client, body
from tests.server.models.two_models import SMALL, TIERS


@asynccontextmanager
async def gateway(
    large: ScriptedReplica, small: ScriptedReplica
) -> AsyncIterator[httpx.AsyncClient]:
    server = Settings(default_tier="custom", models=[SMALL], tiers=TIERS)
    app = create_app(
        server,
        lambda: engine_over([large.url], name="large"),
        further={"small": lambda: engine_over([small.url], name="small")},
    )
    async with app.router.lifespan_context(app):
        for name in ("large", "small"):
            await app.state.models.find(name).loaded()
        async with asgi_client(app) as http:
            yield http


async def test_each_model_has_replicas_of_its_own() -> None:
    async with (
        ScriptedReplica().serving() as large,
        ScriptedReplica().serving() as small,
        gateway(large, small) as http,
    ):
        answers = [
            await http.post(CHAT, json=body(max_tokens=60, **fields))
            for fields in (
                {"model": "large", "budget_tier": "high"},
                {"model": "large", "budget_tier": "low"},
                {"model": "small"},
            )
        ]
        metrics = (await http.get("/metrics")).text

    assert [answer.json()["model"] for answer in answers] == ["large", "small", "small"]
    assert answers[1].json()["choices"][0]["thinking"]["tokens"] <= 20
    assert (len(large.bodies), len(small.bodies)) == (1, 2)
    for name in ("large", "small"):
        assert f'proctor_replica_failures_total{{model="{name}",outcome="failed"}} 0.0' in metrics
        assert f'proctor_replicas{{model="{name}",state="up"}} ' in metrics
