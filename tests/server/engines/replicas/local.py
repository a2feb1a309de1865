"""An engine over scripted replicas, and its local parts: the tokenizer of bytes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from proctor.budget import Markers, TokenBudget
from proctor.server.engines.base import Job, Sampling
from proctor.server.engines.fake import MARKERS, VOCABULARY, ByteCodec
from proctor.server.engines.local_model import LocalModel
from proctor.server.engines.replicas.balancing.health import HealthSettings
from proctor.server.engines.replicas.cache_salt import CacheSalt
from proctor.server.engines.replicas.discovery import ReplicaService
from proctor.server.engines.replicas.engine import ReplicaEngine
from proctor.server.engines.replicas.generate_api import GenerateApi
from proctor.server.engines.replicas.pool import DEFAULT_HEALTH, ReplicaPool
from tests.server.engines.replicas.scripted_replica import ScriptedReplica, handshake

CONFIG = SimpleNamespace(
    model_config=SimpleNamespace(
        max_logprobs=20,
        get_vocab_size=lambda: 260,
        is_diffusion=False,
        logits_processors=None,
        is_encoder_decoder=False,
    ),
    structured_outputs_config=None,
)


class NoGrammars:
    """A checker of grammars for tests without any."""

    async def check(self, constraint: Any, owner: str) -> Any:
        raise AssertionError("no test here has a grammar")

    def wait(self) -> None:
        pass

    def close(self) -> None:
        pass


def local_model(markers: Markers = MARKERS) -> LocalModel:
    """Return the local parts of the model that scripted replicas serve."""
    codec = ByteCodec(markers, opens=True)
    return LocalModel(codec, markers, "</think>", VOCABULARY, {}, CONFIG)


def engine_over(
    urls: Sequence[str],
    salt: str = "",
    health: HealthSettings = DEFAULT_HEALTH,
    name: str = "scripted",
) -> ReplicaEngine:
    """Return an engine over scripted replicas, which has not started."""
    local, told = local_model(), handshake()
    api = GenerateApi(told.models[0], local.markers, local.defaults, by_priority=True)
    return ReplicaEngine(
        local,
        ReplicaService(api, told.context_length, told.identity),
        name,
        lambda: ReplicaPool(urls, "", told.identity, health, model=name),
        NoGrammars(),
        CacheSalt(salt),
    )


@asynccontextmanager
async def running_engine(
    *replicas: ScriptedReplica, salt: str = ""
) -> AsyncIterator[ReplicaEngine]:
    """Start an engine over replicas."""
    engine = engine_over([replica.url for replica in replicas], salt)
    await engine.warm_up()
    try:
        yield engine
    finally:
        await engine.aclose()


def job(name: str = "job", **fields: Any) -> Job:
    """Return a job with a prompt of its own."""
    values = {
        "budget": TokenBudget(minimum=30, maximum=60, continuation_ids=((ord("W"), ord("t")),)),
        "sampling": Sampling(max_tokens=120),
        "prompt_ids": tuple(f"the prompt of {name}".encode()),
        **fields,
    }
    return Job(id=name, **values)
