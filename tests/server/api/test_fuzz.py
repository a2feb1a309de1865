"""Arbitrary input is answered with a 4xx in OpenAI's format, and never with a 5xx."""

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proctor.server.config.budgets import CUSTOM
from proctor.server.engines.fake import FakeEngine
from proctor.server.schemas.budget import Thinking
from proctor.server.schemas.completions import CompletionRequest
from proctor.server.schemas.generation import ChatRequest
from proctor.server.schemas.tokenization import TokenizeRequest
from tests.server.harness import CHAT, body, client

pytestmark = pytest.mark.slow

ROUTE = "/v1/route"
COMPLETIONS = "/v1/completions"

numbers = st.integers() | st.integers(-2, 40) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text()
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
names = st.sampled_from([*ChatRequest.model_fields, "tools", "user", "budget"]) | st.text()
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant"]), "content": st.text()},
        optional=dict.fromkeys(["name", "reasoning_content", "tool_calls"], anything),
    ),
    max_size=3,
)
plausible = st.fixed_dictionaries(
    {},
    optional={
        "messages": messages,
        "max_thinking_tokens": st.integers(-2, 200),
        "min_thinking_tokens": st.integers(-2, 200),
        "max_tokens": st.integers(-1, 300),
        "max_completion_tokens": st.integers(-1, 300),
        "thinking": st.fixed_dictionaries(
            {}, optional={name: st.integers(-2, 50) | anything for name in Thinking.model_fields}
        ),
        "temperature": st.floats(-1, 3),
        "n": st.integers(-1, 3),
        "seed": st.integers(),
        "stop": st.lists(st.text(max_size=3), max_size=3) | st.text(max_size=3),
        "stream": st.booleans(),
    },
)


async def assert_sane(http: httpx.AsyncClient, response: httpx.Response) -> None:
    assert response.status_code in (200, 400, 404), response.text
    if response.status_code != 200:
        error = response.json()["error"]
        assert error["message"]
        assert error["type"] == "invalid_request_error"
    assert "event: error" not in response.text


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=100)
@given(fields=plausible | st.dictionaries(names, anything, max_size=4))
async def test_a_dry_run_refuses_what_a_chat_refuses(fields: dict[str, Any]) -> None:
    request = body(**fields)
    async with client(FakeEngine(), default_tier="auto") as http:
        chat, route = await http.post(CHAT, json=request), await http.post(ROUTE, json=request)
    assert route.status_code == chat.status_code
    if route.status_code == 200:
        assert chat.headers["x-budget-tier"] == (route.json()["tier"] or CUSTOM)
    else:
        assert route.json() == chat.json()


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150)
@given(fields=plausible | st.dictionaries(names, anything, max_size=4))
async def test_nearly_valid_bodies(fields: dict[str, Any]) -> None:
    async with client(FakeEngine()) as http:
        await assert_sane(http, await http.post(CHAT, json=body(**fields)))


@given(raw=st.binary())
async def test_arbitrary_bytes(raw: bytes) -> None:
    async with client(FakeEngine()) as http:
        await assert_sane(http, await http.post(CHAT, content=raw))


tokens = st.lists(st.integers(-1, 300) | scalars, max_size=4)
prompts = st.text() | tokens | st.lists(tokens | st.text(), max_size=2) | anything
others = st.sampled_from(
    [*CompletionRequest.model_fields, *TokenizeRequest.model_fields, "tokens", "echo", "logprobs"]
)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150)
@given(
    path=st.sampled_from([COMPLETIONS, "/tokenize", "/detokenize"]),
    fields=st.fixed_dictionaries(
        {}, optional={"prompt": prompts, "tokens": tokens, "messages": messages}
    ),
    more=plausible | st.dictionaries(others | st.text(), anything, max_size=2),
)
async def test_prompts_and_tokens(path: str, fields: dict[str, Any], more: dict[str, Any]) -> None:
    async with client(FakeEngine()) as http:
        request = {"model": "fake", **fields, **more}
        await assert_sane(http, await http.post(path, json=request))
