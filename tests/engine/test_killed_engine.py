"""After an engine was killed, every call to it raises, and every request gets a 503."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from proctor.budget import TokenBudget
from proctor.server.app import create_app
from proctor.server.config.budgets import CUSTOM
from proctor.server.config.settings import load_settings
from proctor.server.engines import supervisor
from proctor.server.engines.base import Job, Sampling
from proctor.server.engines.factory import load_engine
from proctor.server.engines.grammars.base import CheckedGrammar
from proctor.server.engines.processes.stall import StallTimeouts
from proctor.server.engines.tool_calls import Constraint, Kind
from proctor.server.engines.vllm.engine import VllmEngine
from proctor.server.errors import EngineUnavailable
from tests.engine.client import CHAT
from tests.engine.gateway import START_SECONDS, restored_metrics
from tests.server.harness import with_timeout
from tests.server.openapi_check import assert_matches_openapi

pytestmark = pytest.mark.engine

MESSAGES = [{"role": "user", "content": "Start with 7, add 5, times 3."}]
CHAT_REQUEST = {"model": "proctor-demo", "messages": MESSAGES, "max_thinking_tokens": 50}
JSON = {"response_format": {"type": "json_object"}}
COMPLETION_REQUEST = {"model": "proctor-demo", "prompt": "Start with 7", "max_tokens": 50}

REQUESTS: list[tuple[str, dict[str, Any]]] = [
    (CHAT, CHAT_REQUEST),
    (CHAT, CHAT_REQUEST | {"stream": True}),
    (CHAT, CHAT_REQUEST | {"min_thinking_tokens": 20}),
    (CHAT, CHAT_REQUEST | JSON),
    (CHAT, CHAT_REQUEST | JSON | {"stream": True}),
    (CHAT, CHAT_REQUEST | {"n": 3}),
    ("/v1/completions", COMPLETION_REQUEST),
    ("/v1/completions", COMPLETION_REQUEST | {"stream": True}),
    ("/v1/route", CHAT_REQUEST),
    ("/tokenize", {"messages": MESSAGES}),
]

JOB = Job("late", (5, 6, 7), Sampling(max_tokens=4, temperature=0.0), TokenBudget(maximum=0))
CONSTRAINED = replace(
    JOB,
    sampling=replace(
        JOB.sampling, constraint=Constraint(Kind.JSON_OBJECT, True, "response_format")
    ),
)
WITH_MINIMUM = replace(JOB, budget=TokenBudget(minimum=2, continuation_ids=((5,),)))


async def generate(engine: VllmEngine, job: Job) -> None:
    async for _ in engine.generate(job):
        pass


CALLS: list[Callable[[VllmEngine], Coroutine[Any, Any, object]]] = [
    lambda engine: engine.check(JOB),
    lambda engine: engine.check(CONSTRAINED),
    lambda engine: generate(engine, JOB),
    lambda engine: engine.record(WITH_MINIMUM),
    lambda engine: engine.health(),
    lambda engine: engine.heartbeat(StallTimeouts(1, 1)),
    lambda engine: engine.codec.render(MESSAGES, thinking=True),
]


@pytest.fixture(autouse=True)
def keep_metrics() -> Iterator[None]:
    with restored_metrics():
        yield


async def test_a_killed_engine_refuses_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "PROBE_SECONDS", 10 * START_SECONDS)
    entered, opened = asyncio.Event(), asyncio.Event()

    async def check_slowly(constraint: Constraint, owner: str) -> CheckedGrammar:
        entered.set()
        await opened.wait()
        raise EngineUnavailable("the engine stopped")

    settings = load_settings({"default_tier": CUSTOM}, None)
    app = create_app(settings, lambda: load_engine(settings))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://test",
            event_hooks={"response": [assert_matches_openapi]},
        ) as http,
    ):
        engine = await app.state.supervisor.loaded()
        assert isinstance(engine, VllmEngine)
        with monkeypatch.context() as patch:
            patch.setattr(engine._grammars, "check", check_slowly)
            checking = asyncio.create_task(http.post(CHAT, json=CHAT_REQUEST | JSON))
            await with_timeout(entered.wait())
            await engine.kill()
            opened.set()
            checked = await with_timeout(checking)
        refused = [checked, *[await http.post(path, json=body) for path, body in REQUESTS]]
        for call in CALLS:
            with pytest.raises(EngineUnavailable):
                await call(engine)
        await engine.kill()
        await engine.aclose()

    for response in refused:
        assert response.status_code == 503, response.text
        assert response.headers["retry-after"]
        assert "stop" in response.json()["error"]["message"]
