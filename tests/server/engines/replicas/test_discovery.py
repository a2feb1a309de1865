"""Where replicas are, what they serve, and by which endpoint budgets reach them."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from proctor.budget import TokenBudget, replay
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import load_settings
from proctor.server.engines.base import Sampling
from proctor.server.engines.fake import MARKERS, VOCABULARY
from proctor.server.engines.replicas.addresses import resolve
from proctor.server.engines.replicas.client import Address
from proctor.server.engines.replicas.completions_api import CompletionsApi
from proctor.server.engines.replicas.discovery import ReplicaService, discover
from proctor.server.engines.replicas.engine import ReplicaEngine
from proctor.server.engines.replicas.generate_api import GenerateApi
from proctor.server.engines.replicas.pool import ReplicaPool
from proctor.server.errors import UnsupportedRequest
from tests.server.engines.replicas.local import NoGrammars, job, local_model
from tests.server.engines.replicas.scripted_replica import CONTEXT, Faults, ScriptedReplica
from tests.waiting import PATIENCE


async def found(replica: ScriptedReplica, api_key: str = "", length: int | None = None) -> Any:
    """Return what is discovered of a replica."""
    async with replica.serving(), asyncio.timeout(PATIENCE):
        return await discover([replica.url], api_key, local_model(), ["scripted"], length)


async def test_a_replica_with_the_plugin() -> None:
    service: ReplicaService = await found(ScriptedReplica())
    assert isinstance(service.api, GenerateApi)
    assert service.context_length == CONTEXT


async def test_a_server_without_the_plugin_is_probed_and_keeps_maximums() -> None:
    replica = ScriptedReplica(has_plugin=False)
    service: ReplicaService = await found(replica)
    assert isinstance(service.api, CompletionsApi)
    with pytest.raises(UnsupportedRequest, match="VLLM_PLUGINS"):
        service.api.check(job())
    capped = job(budget=TokenBudget(maximum=7), sampling=Sampling(max_tokens=60))
    async with replica.serving():
        engine = ReplicaEngine(
            local_model(),
            service,
            "scripted",
            lambda: ReplicaPool([replica.url], "", service.identity),
            NoGrammars(),
            lambda owner: "",
        )
        await engine.warm_up()
        async with aclosing(engine.generate(capped)) as deltas:
            tokens = [token async for delta in deltas for token in delta.token_ids]
        await engine.aclose()
    assert replay(capped.budget, MARKERS, tokens, vocabulary=VOCABULARY).tokens <= 7


async def test_a_server_that_ignores_budgets_is_refused() -> None:
    with pytest.raises(ValueError, match=r"do not enforce budgets.*proctor replica"):
        await found(ScriptedReplica(has_plugin=False, keeps_budgets=False))


async def test_a_context_that_is_not_reported_must_be_set() -> None:
    unreported = ScriptedReplica(has_plugin=False, context_length=None)
    with pytest.raises(ValueError, match=r"engine\.max_model_len"):
        await found(unreported)
    service: ReplicaService = await found(unreported, length=512)
    assert service.context_length == 512


async def test_a_longer_context_than_the_replicas_is_refused() -> None:
    with pytest.raises(ValueError, match=r"engine\.max_model_len is 9999"):
        await found(ScriptedReplica(), length=9999)


async def test_a_wrong_key_is_told() -> None:
    with pytest.raises(ValueError, match=r"rejects engine\.api_key"):
        await found(ScriptedReplica(api_key="right"), api_key="wrong")
    assert await found(ScriptedReplica(api_key="right"), api_key="right")


async def test_it_waits_for_a_replica_that_is_starting(caplog: pytest.LogCaptureFixture) -> None:
    replica = ScriptedReplica(faults=Faults(hangs=False), has_plugin=True)
    async with replica.serving():
        replica.has_plugin = False
        replica.faults.status = 503  # of the completion that probes it
        finding = asyncio.create_task(discover([replica.url], "", local_model(), ["scripted"]))
        await asyncio.wait_for(replica.asked.wait(), PATIENCE)
        replica.has_plugin = True
        service = await asyncio.wait_for(finding, PATIENCE)
    assert isinstance(service.api, GenerateApi)
    assert "waiting for a replica" in caplog.text


async def test_addresses() -> None:
    found = await resolve(["http://127.0.0.1:8000/", "https://127.0.0.2", "http://[::1]:9"])
    assert found == {
        "127.0.0.1:8000": Address("http://127.0.0.1:8000", "127.0.0.1:8000", None),
        "127.0.0.2:443": Address("https://127.0.0.2:443", "127.0.0.2", "127.0.0.2"),
        "[::1]:9": Address("http://[::1]:9", "[::1]:9", None),
    }


@pytest.mark.parametrize("host", ["does-not-exist.invalid", "a..b", "x" * 70])
async def test_names_that_cannot_be_resolved_have_no_addresses(host: str) -> None:
    assert await resolve([f"http://{host}:8000"]) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        "replica:8000",
        "ftp://replica",
        "http://replica/v1",
        "http://replica:99999",
        "http://",
        "http://replica:0",
        "http://me@replica",
        "http://replica?x=1",
    ],
)
def test_urls_are_checked(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"^engine\.urls\.0: "):
        load_settings({"model": "m", "engine": {"kind": "vllm", "urls": [wrong]}})


def test_a_kind_must_be_known() -> None:
    with pytest.raises(ConfigError, match="'completions' or 'vllm'"):
        load_settings({"model": "m", "engine": {"kind": "sglang"}})
