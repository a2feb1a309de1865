"""Tool calls follow their schemas on a real vocabulary, after thinking of any length."""

import json
from typing import Any

import jsonschema
import pytest

from tests.engine.gateway import Gateway
from tests.engine.real_model.client import END, START, request_for, send_all, thinking_count

pytestmark = pytest.mark.engine

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Köln", "Zürich", "東京"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "forecast", "parameters": PARAMETERS, "strict": True},
}
NAMED: dict[str, Any] = {"type": "function", "function": {"name": "forecast"}}


@pytest.mark.parametrize(("tool_choice", "finish"), [("required", "tool_calls"), (NAMED, "stop")])
async def test_a_call_follows_its_schema_after_a_forced_end(
    real_gateway: Gateway, tool_choice: Any, finish: str
) -> None:
    requests = [
        request_for(
            real_gateway,
            "What will the weather be?",
            tools=[TOOL],
            tool_choice=tool_choice,
            parallel_tool_calls=False,
            max_thinking_tokens=cap,
            min_thinking_tokens=cap,
            thinking={"landing": "hard", "on_loop": "off"},
            temperature=0.8,
            seed=cap,
            max_tokens=160,
        )
        for cap in (0, 1, 3, 8, 21)
    ]
    for request, answer in zip(requests, await send_all(real_gateway, requests), strict=True):
        (choice,) = answer["choices"]
        count = thinking_count(real_gateway, f"{answer['id']}-0")
        assert choice["thinking"]["tokens"] == count == request["max_thinking_tokens"]
        assert choice["finish_reason"] == finish
        (call,) = choice["message"]["tool_calls"]
        assert call["function"]["name"] == "forecast"
        jsonschema.validate(json.loads(call["function"]["arguments"]), PARAMETERS)


async def test_optional_calls_leave_no_marker_in_the_content(real_gateway: Gateway) -> None:
    requests = [
        request_for(
            real_gateway,
            "What will the weather be in Köln?",
            tools=[TOOL],
            max_thinking_tokens=20,
            temperature=0.8,
            seed=seed,
            max_tokens=120,
        )
        for seed in range(6)
    ]
    for answer in await send_all(real_gateway, requests):
        (choice,) = answer["choices"]
        count = thinking_count(real_gateway, f"{answer['id']}-0")
        assert choice["thinking"]["tokens"] == count <= 20
        for marker in (START, END, "<tool_call>"):
            assert marker not in (choice["message"]["content"] or "")
