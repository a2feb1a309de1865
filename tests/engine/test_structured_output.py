"""Tools and structured output on the real engine: constraints apply to answers, not to thinking."""

import asyncio
import json
import re
from random import Random
from typing import Any

import httpx
import jsonschema
import pytest

from tests.engine.client import CHAT, ask, body
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "digits": {"type": "integer", "minimum": 0, "maximum": 99},
        "sure": {"type": "boolean"},
        "how": {"enum": ["worked out", "guessed"]},
    },
    "required": ["digits", "sure", "how"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "result", "schema": SCHEMA}}


def tool(name: str) -> dict[str, Any]:
    numbers = {"type": "integer", "minimum": 0, "maximum": 99}
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{name} two numbers",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {"a": numbers, "b": numbers},
                "required": ["a", "b"],
                "additionalProperties": False,
            },
        },
    }


@pytest.fixture
async def http(vllm_gateway: Gateway) -> Any:
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=PATIENCE) as client:
        yield client


async def test_every_answer_matches_its_schema_whatever_the_budget(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    rng = Random(5)

    async def one() -> None:
        cap = rng.choice([0, 1, 3, rng.randint(4, 60), 300, -1])
        request = body(
            vllm_gateway,
            chain(rng, rng.randint(1, 6)),
            max_thinking_tokens=cap,
            min_thinking_tokens=0 if cap < 1 else rng.choice([0, 0, cap]),
            temperature=rng.choice([0, 0.6, 1.2]),
            max_tokens=600,
            stream=rng.random() < 0.5,
            response_format=FORMAT,
        )
        answer = await ask(http, request)
        (choice,) = answer["choices"]
        jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)
        assert choice["finish_reason"] == "stop"
        assert cap == -1 or choice["thinking"]["tokens"] <= cap

    await asyncio.gather(*(one() for _ in range(200)))


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        ({"regex": "[0-9]{2}"}, r"\d\d"),
        ({"choice": ["even", "odd"]}, "even|odd"),
        ({"grammar": 'root ::= "It is " [0-9] [0-9]'}, r"It is \d\d"),
        ({"json": {"type": "integer", "minimum": 0, "maximum": 9}}, r"\d"),
    ],
)
async def test_each_kind_of_constraint(
    vllm_gateway: Gateway, http: httpx.AsyncClient, constraint: dict[str, Any], pattern: str
) -> None:
    prompt = "Start with 7, add 5, times 3. What are the last two digits?"
    for cap in (0, 4, 200):
        request = body(
            vllm_gateway,
            prompt,
            max_thinking_tokens=cap,
            structured_outputs=constraint,
            temperature=0,
        )
        choice = (await ask(http, request))["choices"][0]
        assert re.fullmatch(pattern, choice["message"]["content"])
        assert choice["thinking"]["tokens"] <= cap
        assert bool(choice["message"].get("reasoning_content")) == bool(cap)


async def tool_calls_of(http: httpx.AsyncClient, request: dict[str, Any]) -> tuple[Any, list[Any]]:
    """Return the choice with its finish reason, and its tool calls, from a stream or not."""
    if not request["stream"]:
        response = await http.post(CHAT, json=request)
        assert response.status_code == 200, response.text
        (choice,) = response.json()["choices"]
        assert choice["message"]["content"] is None
        return choice, choice["message"]["tool_calls"]
    end: Any = None
    calls: list[Any] = []
    async with http.stream("POST", CHAT, json=request) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            (end,) = json.loads(line[6:])["choices"]
            for delta in end["delta"].get("tool_calls", ()):
                if "id" in delta:
                    assert delta["index"] == len(calls)
                    calls.append({**delta, "function": dict(delta["function"])})
                else:
                    calls[delta["index"]]["function"]["arguments"] += delta["function"]["arguments"]
    return end, calls


async def test_required_calls_match_their_schema_whatever_the_budget(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    rng = Random(6)
    tools = [tool("add"), tool("multiply")]
    named = {"type": "function", "function": {"name": "multiply"}}

    async def one() -> None:
        cap, choice = rng.choice([0, 2, 30, 200]), rng.choice(["required", named])
        request = body(
            vllm_gateway,
            chain(rng, rng.randint(1, 4)),
            tools=tools,
            tool_choice=choice,
            parallel_tool_calls=False,
            max_thinking_tokens=cap,
            min_thinking_tokens=rng.choice([0, cap]),
            temperature=rng.choice([0, 0.8]),
            max_tokens=500,
            stream=rng.random() < 0.5,
        )
        end, (call,) = await tool_calls_of(http, request)
        function = call["function"]
        assert function["name"] in (["multiply"] if choice is named else ["add", "multiply"])
        definition = next(t["function"] for t in tools if t["function"]["name"] == function["name"])
        jsonschema.validate(json.loads(function["arguments"]), definition["parameters"])
        assert end["finish_reason"] == ("stop" if choice is named else "tool_calls")
        assert end["thinking"]["tokens"] <= cap

    await asyncio.gather(*(one() for _ in range(60)))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "strin"}},
                }
            },
            "response_format",
        ),
        ({"structured_outputs": {"regex": "(unclosed"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"grammar": "root ::= ("}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"json": {"type": "objec"}}}, "structured_outputs.json"),
        ({"logit_bias": {"100000": 1}}, "logit_bias"),
    ],
)
async def test_an_invalid_constraint_or_bias_is_refused_before_the_engine(
    vllm_gateway: Gateway, http: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    response = await http.post(CHAT, json=body(vllm_gateway, "hi", **fields))

    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
