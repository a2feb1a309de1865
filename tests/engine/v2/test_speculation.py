"""Budgets, texts and distributions are the same with speculative decoding."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from proctor.demo.train import MODEL
from tests.engine.client import ask, assert_budget_kept, metric, random_request
from tests.engine.gateway import Gateway
from tests.engine.v2.gateway import running_v2_gateway
from tests.engine.v2.law import assert_law
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

NGRAM = {"method": "ngram", "prompt_lookup_min": 2, "prompt_lookup_max": 4}
NOISE = 0.2
"""Relative noise on the weights of the noisy draft model, so that most of its drafts are wrong."""

CACHE = 2**24


@pytest.fixture(scope="module")
def noisy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the demo model whose drafts are often rejected."""
    folder = tmp_path_factory.mktemp("draft") / "model"
    shutil.copytree(MODEL, folder)
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: weight
        + (NOISE * weight.float().std() * torch.randn(weight.shape, generator=generator)).to(
            weight.dtype
        )
        for name, weight in load_file(MODEL / "model.safetensors").items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module", params=["ngram-3", "same-7", "noisy-1"])
def gateway(request: pytest.FixtureRequest, noisy_model: Path) -> Iterator[Gateway]:
    """A gateway over the V2 runner with speculative decoding."""
    method, count = request.param.split("-")
    models = {"same": MODEL, "noisy": noisy_model}
    speculative: dict[str, Any] = (
        {"method": "draft_model", "model": str(models[method])} if method in models else NGRAM
    )
    speculative = {**speculative, "num_speculative_tokens": int(count)}
    with running_v2_gateway(kv_cache_memory_bytes=CACHE, speculative_config=speculative) as made:
        yield made


async def test_random_requests_think_within_their_budgets(gateway: Gateway) -> None:
    rng = Random(31)
    requests = [random_request(gateway, rng, most=60) for _ in range(24)]
    async with httpx.AsyncClient(base_url=gateway.url, timeout=600) as http:
        before = await draft_counts(http)  # the process counts those of earlier gateways as well
        answers = await asyncio.gather(*(ask(http, request) for request in requests))
        await until_counted(http, before)
    for request, answer in zip(requests, answers, strict=True):
        assert_budget_kept(gateway, request, answer)


async def until_counted(http: httpx.AsyncClient, before: list[float]) -> None:
    """Wait until the counts by phase, read with the health check, have most of vLLM's tokens."""
    async with asyncio.timeout(PATIENCE):
        while True:
            after = await draft_counts(http)
            of_vllm, accepted, proposed = (
                new - old for new, old in zip(after, before, strict=True)
            )
            if of_vllm and 0.5 * of_vllm <= accepted <= min(of_vllm, proposed):
                return
            await asyncio.sleep(0.5)


async def draft_counts(http: httpx.AsyncClient) -> list[float]:
    """Return vLLM's count of accepted draft tokens, and ours of accepted and proposed ones."""
    return [
        await metric(http, name)
        for name in (
            "vllm:spec_decode_num_accepted_tokens_total",
            "proctor_accepted_draft_tokens_total",
            "proctor_draft_tokens_total",
        )
    ]


async def test_greedy_texts_equal_those_without_speculation(
    gateway: Gateway, vllm_gateway: Gateway
) -> None:
    rng = Random(2)
    requests = [
        {**random_request(gateway, rng, most=40), "temperature": 0, "stream": False}
        for _ in range(12)
    ]
    async with (
        httpx.AsyncClient(base_url=gateway.url, timeout=600) as http,
        httpx.AsyncClient(base_url=vllm_gateway.url, timeout=600) as v1,
    ):
        ours = await asyncio.gather(*(ask(http, request) for request in requests))
        theirs = await asyncio.gather(*(ask(v1, request) for request in requests))
    for one, other in zip(ours, theirs, strict=True):
        assert one["choices"] == other["choices"]


@pytest.mark.parametrize("gateway", ["noisy-1"], indirect=True)
def test_continuations_have_the_distribution_of_s1(gateway: Gateway, vllm_gateway: Gateway) -> None:
    """Under rejection sampling, which replaces most drafts of this model."""
    assert_law(gateway, vllm_gateway)
