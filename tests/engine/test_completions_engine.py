"""Budgets enforced over vLLM's API server by stop and resubmit, on the demo model."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proctor.budget import TokenBudget
from proctor.server.app import create_app
from proctor.server.config.budgets import CUSTOM
from proctor.server.config.settings import DEMO, Settings
from proctor.server.engines.base import Job, Sampling
from proctor.server.engines.completions.dialects import TextDialect, TokenIdDialect
from proctor.server.engines.completions.engine import CompletionsEngine
from proctor.server.engines.factory import load_engine
from proctor.server.engines.local_model import LocalModel
from tests.engine.chains import assert_total_kept, random_chains
from tests.engine.client import ask, assert_budget_kept, body, random_request
from tests.engine.gateway import START_SECONDS, Gateway
from tests.engine.prompts import chain
from tests.engine.recording_engine import RecordingEngine
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

NAME = "proctor-demo"
FLAGS = [
    *("--model", str(DEMO / "model"), "--served-model-name", NAME, "--host", "127.0.0.1"),
    *("--max-model-len", "2048", "--max-num-seqs", "64", "--kv-cache-memory-bytes", "536870912"),
    *("--enforce-eager", "--no-enable-chunked-prefill", "--disable-uvicorn-access-log"),
]


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    """Start vLLM's API server, and yield its base URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--port", str(port)]
    environment = os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"}
    process = subprocess.Popen([*command, *FLAGS], env=environment, start_new_session=True)
    try:
        _await_health(f"http://127.0.0.1:{port}/health", process)
        # On processors with AMX, vLLM's worker crashes on a short prompt unless a longer one came
        # first: its attention uses tiles that only a larger matrix product requests from Linux.
        long = {"model": NAME, "prompt": [5] * 64, "max_tokens": 1}
        assert httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=long).is_success
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await_health(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "vLLM's API server ended before it was ready"
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError("vLLM's API server was not ready in time")


@pytest.fixture
async def remote(upstream: str) -> AsyncIterator[Gateway]:
    """A gateway over that server, with the engine that the factory creates."""
    engine = {"kind": "completions", "base_url": upstream}
    settings = Settings(
        model=str(DEMO / "model"), served_model_name=NAME, engine=engine, default_tier=CUSTOM
    )
    loaded = RecordingEngine(await asyncio.to_thread(load_engine, settings))
    yield Gateway("http://test", loaded, settings, asyncio.get_running_loop())
    await loaded.aclose()


@asynccontextmanager
async def gateway_client(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(gateway.settings, lambda: gateway.engine)
    async with app.router.lifespan_context(app):
        await app.state.supervisor.loaded()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=gateway.url) as http:
            yield http


def completions_engine(gateway: Gateway) -> CompletionsEngine:
    engine = gateway.engine._engine
    assert isinstance(engine, CompletionsEngine)
    return engine


async def test_discovery_finds_the_context_length_and_token_ids(remote: Gateway) -> None:
    assert remote.engine.model.context_length == 2048
    assert isinstance(completions_engine(remote)._service.dialect, TokenIdDialect)
    await remote.engine.health()


async def test_100_concurrent_requests_think_within_their_budgets(remote: Gateway) -> None:
    rng = Random(20250131)
    requests = [random_request(remote, rng) for _ in range(100)]
    async with gateway_client(remote) as http:
        answers = await asyncio.gather(*(ask(http, request) for request in requests))
    for request, answer in zip(requests, answers, strict=True):
        assert_budget_kept(remote, request, answer)


async def test_chains_share_one_budget_to_the_token(remote: Gateway) -> None:
    rng = Random(20251129)
    requests = [random_chains(remote, rng, ["vote", "first_agreement"]) for _ in range(30)]
    async with gateway_client(remote) as http:
        answers = await asyncio.gather(*(ask(http, request) for request in requests))
    for request, answer in zip(requests, answers, strict=True):
        assert_total_kept(remote, request, answer)


async def test_greedy_output_matches_the_embedded_engine(
    remote: Gateway, vllm_gateway: Gateway
) -> None:
    """The tokens are identical. Prefill and decoding sum in different orders, so one near-tie
    among all requests may be decided differently."""
    fields: list[dict[str, Any]] = [
        {"thinking": {"continuations": 3, "continuation_text": ["Wait", "Hmm"]}},
        {"min_thinking_tokens": 200, "max_thinking_tokens": 230},
        {"max_thinking_tokens": 30, "thinking": {"wrap_up_text": "\nFinal Answer:"}},
    ]
    differing = 0
    async with (
        gateway_client(remote) as http,
        httpx.AsyncClient(base_url=vllm_gateway.url) as embedded,
    ):
        for number in range(12):
            request = body(remote, chain(Random(number), 5), temperature=0, **fields[number % 3])
            ours, theirs = await ask(http, request), await ask(embedded, request)
            mine = remote.engine.recordings[f"{ours['id']}-0"]
            embedded_one = vllm_gateway.engine.recordings[f"{theirs['id']}-0"]
            differing += (mine.tokens, mine.record) != (
                embedded_one.tokens,
                embedded_one.record,
            )
    assert differing <= 1


async def test_the_same_seed_gives_the_same_tokens(remote: Gateway) -> None:
    request = body(remote, chain(Random(4), 5), seed=11, temperature=1.0, min_thinking_tokens=120)
    async with gateway_client(remote) as http:
        first, second = [await ask(http, request) for _ in range(2)]
    assert first["choices"][0]["thinking"]["continuations"] > 0
    assert first["choices"][0]["message"] == second["choices"][0]["message"]


async def test_budgets_are_kept_without_token_ids(remote: Gateway) -> None:
    """The dialect is that of a server that returns no token ids."""
    engine = completions_engine(remote)
    model = engine.model
    local = LocalModel(engine.codec, model.markers, "</think>", model.vocabulary, {}, None)
    service = replace(engine._service, dialect=TextDialect("</think>", engine.codec.encode))
    textual = RecordingEngine(CompletionsEngine(engine._upstream, service, local, model.name))
    text_only = replace(remote, engine=textual)
    rng = Random(7)
    requests = [random_request(remote, rng) for _ in range(30)]
    async with gateway_client(text_only) as http:
        answers = await asyncio.gather(*(ask(http, request) for request in requests))
    for request, answer in zip(requests, answers, strict=True):
        assert_budget_kept(text_only, request, answer)


async def test_an_aborted_job_is_aborted_on_the_server(remote: Gateway, upstream: str) -> None:
    messages = [{"role": "user", "content": chain(Random(1), 8)}]
    prompt = await remote.engine.codec.render(messages, thinking=True)
    budget = TokenBudget(1500, 1800, continuation_ids=(tuple(remote.engine.codec.encode("Wait")),))
    job = Job("job", prompt.ids, Sampling(1900), budget)
    async with httpx.AsyncClient() as http:
        before = await _generated_when_idle(http, upstream, over=-1)
        async with aclosing(remote.engine.generate(job)) as deltas:
            await anext(deltas)
        after = await _generated_when_idle(http, upstream, over=before)

    assert after - before < budget.minimum


async def _generated_when_idle(http: httpx.AsyncClient, upstream: str, over: float) -> float:
    """Wait until vLLM is idle and has generated more than `over` tokens; return their number."""
    async with asyncio.timeout(PATIENCE):
        while True:
            metrics = await http.get(f"{upstream.removesuffix('/v1')}/metrics")
            values = {
                sample.name: sample.value
                for family in text_string_to_metric_families(metrics.text)
                for sample in family.samples
            }
            generated = values["vllm:generation_tokens_total"]
            if generated > over and not values["vllm:num_requests_running"]:
                return generated
            await asyncio.sleep(0.02)
