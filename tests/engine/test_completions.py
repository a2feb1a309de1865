"""Budgets over vLLM's own API server, which knows none: stop and resubmit, on the demo model."""

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
from proctor.server.engines.completions.discovery import LocalModel
from proctor.server.engines.completions.engine import CompletionsEngine
from proctor.server.engines.factory import load_engine
from tests.engine.asking import ask, assert_kept, body, random_request
from tests.engine.prompts import chain
from tests.engine.recording import RecordingEngine
from tests.engine.served import START_SECONDS, Served
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

NAME = "proctor-demo"
FLAGS = [
    *("--model", str(DEMO / "model"), "--served-model-name", NAME, "--host", "127.0.0.1"),
    *("--max-model-len", "2048", "--max-num-seqs", "64", "--kv-cache-memory-bytes", "536870912"),
    *("--enforce-eager", "--no-enable-chunked-prefill", "--disable-uvicorn-access-log"),
]


@pytest.fixture(scope="module")
def peer() -> Iterator[str]:
    """The base URL of vLLM's API server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--port", str(port)]
    environment = os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"}
    process = subprocess.Popen([*command, *FLAGS], env=environment, start_new_session=True)
    try:
        _await_health(f"http://127.0.0.1:{port}/health", process)
        # vLLM's worker dies of a short prompt on processors with AMX unless a longer one came
        # first: its attention uses tiles that only a larger product of matrices asks Linux for.
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
async def over(peer: str) -> AsyncIterator[Served]:
    """A gateway over it, as the loader makes one."""
    engine = {"kind": "completions", "base_url": peer}
    settings = Settings(
        model=str(DEMO / "model"), served_model_name=NAME, engine=engine, default_tier=CUSTOM
    )
    loaded = RecordingEngine(await asyncio.to_thread(load_engine, settings))
    yield Served("http://test", loaded, settings, asyncio.get_running_loop())
    await loaded.aclose()


@asynccontextmanager
async def gateway(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(served.settings, lambda: served.engine)
    async with app.router.lifespan_context(app):
        await app.state.supervisor.loaded()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=served.url) as http:
            yield http


def inner(served: Served) -> CompletionsEngine:
    engine = served.engine._engine
    assert isinstance(engine, CompletionsEngine)
    return engine


async def test_what_vllm_is_found_to_offer(over: Served) -> None:
    assert over.engine.model.context_length == 2048
    assert isinstance(inner(over)._service.dialect, TokenIdDialect)
    await over.engine.health()


async def test_100_concurrent_requests_think_within_their_budgets(over: Served) -> None:
    rng = Random(20250131)
    requests = [random_request(over, rng) for _ in range(100)]
    async with gateway(over) as http:
        answers = await asyncio.gather(*(ask(http, request) for request in requests))
    for request, answer in zip(requests, answers, strict=True):
        assert_kept(over, request, answer)


async def test_greedy_rounds_give_what_the_embedded_engine_gives(
    over: Served, served: Served
) -> None:
    """Token for token. A prefill adds up in another order than decoding does, so one near-tie
    among all the requests may fall to the other side."""
    fields: list[dict[str, Any]] = [
        {"thinking": {"continuations": 3, "continuation_text": ["Wait", "Hmm"]}},
        {"min_thinking_tokens": 200, "max_thinking_tokens": 230},
        {"max_thinking_tokens": 30, "thinking": {"wrap_up_text": "\nFinal Answer:"}},
    ]
    differing = 0
    async with gateway(over) as http, httpx.AsyncClient(base_url=served.url) as embedded:
        for number in range(12):
            request = body(over, chain(Random(number), 5), temperature=0, **fields[number % 3])
            ours, theirs = await ask(http, request), await ask(embedded, request)
            one = over.engine.recordings[f"{ours['id']}-0"]
            other = served.engine.recordings[f"{theirs['id']}-0"]
            differing += (one.tokens, one.attempts) != (other.tokens, other.attempts)
    assert differing <= 1


async def test_the_same_seed_gives_the_same_tokens(over: Served) -> None:
    request = body(over, chain(Random(4), 5), seed=11, temperature=1.0, min_thinking_tokens=120)
    async with gateway(over) as http:
        one, other = [await ask(http, request) for _ in range(2)]
    assert one["choices"][0]["thinking"]["continuations"] > 0
    assert one["choices"][0]["message"] == other["choices"][0]["message"]


async def test_texts_alone_keep_the_budgets_too(over: Served) -> None:
    """vLLM, spoken to as a server that gives no token ids."""
    engine = inner(over)
    model = engine.model
    local = LocalModel(engine.codec, model.markers, "</think>", model.vocabulary, {})
    service = replace(engine._service, dialect=TextDialect("</think>", engine.codec.encode))
    textual = RecordingEngine(CompletionsEngine(engine._upstream, service, local, model.name))
    spoken_to = replace(over, engine=textual)
    rng = Random(7)
    requests = [random_request(over, rng) for _ in range(30)]
    async with gateway(spoken_to) as http:
        answers = await asyncio.gather(*(ask(http, request) for request in requests))
    for request, answer in zip(requests, answers, strict=True):
        assert_kept(spoken_to, request, answer)


async def test_a_job_that_is_given_up_leaves_the_server(over: Served, peer: str) -> None:
    messages = [{"role": "user", "content": chain(Random(1), 8)}]
    prompt = await over.engine.codec.render(messages, thinking=True)
    budget = TokenBudget(1500, 1800, continuation_ids=(tuple(over.engine.codec.encode("Wait")),))
    job = Job("job", prompt.ids, Sampling(1900), budget)
    async with httpx.AsyncClient() as http:
        before = await _generated_when_idle(http, peer, over=-1)
        async with aclosing(over.engine.generate(job)) as deltas:
            await anext(deltas)
        after = await _generated_when_idle(http, peer, over=before)

    assert after - before < budget.minimum


async def _generated_when_idle(http: httpx.AsyncClient, peer: str, over: float) -> float:
    """Tokens that vLLM has generated, by its own count, once they are more and it runs nothing."""
    async with asyncio.timeout(PATIENCE):
        while True:
            metrics = await http.get(f"{peer.removesuffix('/v1')}/metrics")
            values = {
                sample.name: sample.value
                for family in text_string_to_metric_families(metrics.text)
                for sample in family.samples
            }
            generated = values["vllm:generation_tokens_total"]
            if generated > over and not values["vllm:num_requests_running"]:
                return generated
            await asyncio.sleep(0.02)
