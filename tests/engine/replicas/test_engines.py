"""Replicas with other engines: vLLM's V2 runner; data and tensor parallelism."""

import asyncio
import os
from collections.abc import Iterator
from random import Random
from typing import Any

import httpx
import orjson
import pytest

from proctor.budget import EngineRecord, TokenBudget, replay
from proctor.budget.processors.params import EngineBudget
from proctor.replica.handshake import PATH
from tests.engine.client import ask, assert_budget_kept, random_request
from tests.engine.gateway import Gateway, running_gateway
from tests.engine.replicas.process import API_KEY, Replica, engine_settings, running_replica
from tests.engine.v2.gateway import BACKEND, ENVIRONMENT, TRITON
from tests.requirements import require

pytestmark = [pytest.mark.engine, pytest.mark.busy]

V2 = ENVIRONMENT | {
    "PYTHONPATH": os.pathsep.join([str(TRITON), str(BACKEND), os.environ.get("PYTHONPATH", "")])
}
UNBOUND = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
"""For machines with fewer NUMA nodes than workers, and test processes with one core each."""

ENGINES: dict[str, tuple[list[str], dict[str, str], int]] = {
    "v2": (["--max-model-len=1024", "--max-num-seqs=16"], V2, 12),
    "data parallel": (["--data-parallel-size=2", "--api-server-count=2"], UNBOUND, 100),
    "tensor parallel": (["--tensor-parallel-size=2"], UNBOUND, 40),
}
"""The flags and the environment of each replica, and how many requests it is asked."""

AUTHORIZED = {"authorization": f"Bearer {API_KEY}"}


@pytest.fixture(scope="module", params=ENGINES)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def other_replica(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    if kind == "v2":
        require(TRITON.exists(), "Triton")
    flags, environment, _ = ENGINES[kind]
    with running_replica(tmp_path_factory.mktemp("other"), *flags, env=environment) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(other_replica: Replica) -> Iterator[Gateway]:
    with running_gateway(**engine_settings([other_replica.url])) as running:
        yield running


async def test_random_budgets_are_kept(kind: str, gateway: Gateway) -> None:
    rng = Random(11)
    requests = [random_request(gateway, rng) for _ in range(ENGINES[kind][2])]
    async with httpx.AsyncClient(base_url=gateway.url, timeout=600) as http:
        answers = await asyncio.gather(*(ask(http, request) for request in requests))
    for request, answer in zip(requests, answers, strict=True):
        assert_budget_kept(gateway, request, answer)


def test_the_handshake_tells_the_runner(kind: str, other_replica: Replica) -> None:
    told = httpx.get(other_replica.url + PATH, headers=AUTHORIZED, timeout=60).json()
    assert told["runner"] == ("v2" if kind == "v2" else "v1")


def test_a_choice_resumes_from_its_tokens(gateway: Gateway, other_replica: Replica) -> None:
    """Wherever a choice is cut, the rest is the same, as are its attempts."""
    encode = gateway.engine.codec.encode
    budget = TokenBudget(
        minimum=70,
        maximum=90,
        continuation_ids=(tuple(encode("Wait")), tuple(encode("so "))),
        landing=8,
    )
    prompt = [*encode("Start with 7, add 5, times 3."), *gateway.engine.model.markers.start]
    whole, attempts = generate(other_replica, budget, prompt, [], [])
    assert len(attempts) > 1
    for cut in (1, attempts[0], attempts[0] + 1, attempts[1] + 1, len(whole) // 2, len(whole) - 2):
        known = [at for at in attempts if at < cut]
        rest, record = generate(other_replica, budget, prompt, whole[:cut], known)
        assert whole[:cut] + rest == whole
        assert record == attempts
    model = gateway.engine.model
    replay(budget, model.markers, whole, frozenset(attempts), model.vocabulary)


def generate(
    replica: Replica,
    budget: TokenBudget,
    prompt: list[int],
    resumed: list[int],
    attempts: list[int],
) -> tuple[list[int], list[int]]:
    """Return the tokens that a replica generates greedily, and its record of attempts."""
    engine_budget = EngineBudget(
        f"{len(resumed)}-{os.urandom(4).hex()}",
        7,
        budget,
        len(resumed),
        EngineRecord(frozenset(attempts)),
    )
    body: dict[str, Any] = {
        "token_ids": [*prompt, *resumed],
        "stream": True,
        "sampling_params": {
            "temperature": 0,
            "max_tokens": 120 - len(resumed),
            "detokenize": False,
            "extra_args": engine_budget.to_extra_args(),
        },
    }
    tokens: list[int] = []
    record: list[int] = []
    url = f"{replica.url}/inference/v1/generate"
    with httpx.stream("POST", url, json=body, headers=AUTHORIZED, timeout=600) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                event = orjson.loads(line.removeprefix("data: "))
                tokens += [token for choice in event["choices"] for token in choice["token_ids"]]
                record = event.get("proctor", {"attempts": record})["attempts"]
    return tokens, record
