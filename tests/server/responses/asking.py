"""Requests of the Responses API, and an engine that calls tools."""

from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from tests.server.harness import client

RESPONSES = "/v1/responses"
ADD = {"type": "function", "name": "add", "parameters": {"type": "object"}}
PATCH = {"type": "custom", "name": "patch"}
AGENTS = {"type": "namespace", "name": "agents", "tools": [{**ADD, "name": "spawn"}]}
TOOLS: list[Any] = [ADD, PATCH, AGENTS]


def engine(
    script: Script | Callable[[Job], Script], tokens_per_delta: int = 1, **fields: Any
) -> FakeEngine:
    """Return an engine whose answers may call tools, in the format of a parser of vLLM's."""
    tools = pytest.importorskip(
        "proctor.server.engines.vllm.tools",
        reason="the CPU engine, whose tool parsers the tests use, is missing",
    )
    hermes = tools.VllmTools("hermes", type("Tokenizer", (), {"get_vocab": lambda _: {}})())
    return FakeEngine(script, tools=hermes, tokens_per_delta=tokens_per_delta, **fields)


def body(**fields: Any) -> dict[str, Any]:
    """Return the body of a request, with `fields` over the defaults."""
    return {"model": "fake", "input": "hi", **fields}


async def post(over: FakeEngine, **fields: Any) -> httpx.Response:
    """Send one request."""
    async with client(over) as http:
        return await http.post(RESPONSES, json=body(**fields))


def sdk_of(http: httpx.AsyncClient) -> openai.AsyncOpenAI:
    """Return OpenAI's SDK on a client of the server."""
    transport: Any = http  # the SDK has its own copy of the type
    return openai.AsyncOpenAI(base_url="http://test/v1", api_key="none", http_client=transport)
