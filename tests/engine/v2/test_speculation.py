"""Budgets, texts and distributions are the same with speculative decoding."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from proctor.demo.train import MODEL
from tests.engine.client import ask, assert_budget_kept, body, metric, random_request
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain
from tests.engine.v2.gateway import running_v2_gateway
from tests.engine.v2.law import assert_law
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

NGRAM = {"method": "ngram", "prompt_lookup_min": 2, "prompt_lookup_max": 4}
TRAINING_STEPS = 40
"""The demo model is trained for 3,000; after so few, most of its drafts are wrong."""

CACHE = 2**24


@pytest.fixture(scope="module")
def shorter_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model, trained for so short a time that most of its drafts are rejected."""
    folder = tmp_path_factory.mktemp("draft")
    command = [sys.executable, "-m", "proctor.demo.train", "--no-compile"]
    options = ["--folder", str(folder), "--steps", str(TRAINING_STEPS)]
    subprocess.run([*command, *options], check=True, capture_output=True)
    return folder


@pytest.fixture(
    scope="module",
    params=[f"{method}-{count}" for method in ("ngram", "same", "shorter") for count in (1, 3, 7)],
)
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """A gateway over the V2 runner with speculative decoding, by method and length of drafts."""
    method, count = request.param.split("-")
    speculative: dict[str, Any] = NGRAM
    if method != "ngram":
        draft = MODEL if method == "same" else request.getfixturevalue("shorter_model")
        speculative = {"method": "draft_model", "model": str(draft)}
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
    ours, theirs = await ask_both(gateway, vllm_gateway, requests)
    for one, other in zip(ours, theirs, strict=True):
        assert one["choices"] == other["choices"]


async def ask_both(
    gateway: Gateway, v1_gateway: Gateway, requests: list[dict[str, Any]]
) -> list[list[dict[str, Any]]]:
    """Return the responses of both gateways."""
    responses = []
    for each in (gateway, v1_gateway):
        async with httpx.AsyncClient(base_url=each.url, timeout=600) as http:
            responses.append(await asyncio.gather(*(ask(http, request) for request in requests)))
    return responses


@pytest.mark.parametrize("gateway", ["same-7", "shorter-3"], indirect=True)
async def test_the_edges_of_a_budget_lie_anywhere_within_a_draft(
    gateway: Gateway, vllm_gateway: Gateway
) -> None:
    """Minimum, maximum, landing and continuations, with edges at every place of a draft."""
    edges = range(20, 28)
    requests = [request for edge in edges for request in requests_with_edge(gateway, edge)]
    ours, theirs = await ask_both(gateway, vllm_gateway, requests)
    for one, other in zip(ours, theirs, strict=True):
        assert one["choices"] == other["choices"]
    exact = ours[::4]
    assert [answer["choices"][0]["thinking"]["tokens"] for answer in exact] == list(edges)


def requests_with_edge(gateway: Gateway, edge: int) -> Iterator[dict[str, Any]]:
    """Yield greedy requests whose thinking changes its course at a token."""
    question = chain(Random(edge), 6)
    limits = {"temperature": 0, "max_tokens": 200}
    at_edge = {"max_thinking_tokens": edge}
    off = {"on_loop": "off"}
    yield body(gateway, question, **limits, **at_edge, min_thinking_tokens=edge, thinking=off)
    yield body(gateway, question, **limits, min_thinking_tokens=edge, max_thinking_tokens=80)
    landing = {"landing": "sentence", "wrap_up_text": "\nFinal Answer:"}
    yield body(gateway, question, **limits, max_thinking_tokens=edge + 20, thinking=landing)
    continued = {"continuations": 2, "continuation_text": ["Wait", "Hmm, again."]}
    yield body(gateway, question, **limits, max_thinking_tokens=edge + 60, thinking=continued)


@pytest.mark.parametrize("gateway", ["shorter-3"], indirect=True)
def test_continuations_have_the_distribution_of_s1(gateway: Gateway, vllm_gateway: Gateway) -> None:
    """Under rejection sampling, which replaces most drafts of this model."""
    assert_law(gateway, vllm_gateway)
