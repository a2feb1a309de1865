"""Tool calls on the real engine: streams and complete responses agree, also when cut short."""

import asyncio
import json
from typing import Any

import httpx
import jsonschema
import pytest

from tests.engine.client import CHAT, body
from tests.engine.gateway import Gateway
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

PROMPT = "Start with 7, add 5, times 3. What are the last two digits?"
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": 0, "maximum": 9},
        "s": {"enum": ["x", "y"]},
    },
    "required": ["a", "s"],
    "additionalProperties": False,
}
TEMPLATE_TOKENS = (
    "<think>",
    "</think>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<tool_call>",
)


def function(parameters: Any = PARAMETERS, **fields: Any) -> dict[str, Any]:
    definition = {"name": "f", "parameters": parameters, **fields}
    return {"type": "function", "function": {k: v for k, v in definition.items() if v is not None}}


STRICT = function(strict=True)
NAMED_CHOICE = {"type": "function", "function": {"name": "f"}}


@pytest.fixture
async def http(vllm_gateway: Gateway) -> Any:
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=PATIENCE) as client:
        yield client


async def send_both(http: httpx.AsyncClient, gateway: Gateway, **fields: Any) -> dict[str, Any]:
    """Return a request's outcome, and check that its stream has the same."""
    defaults: dict[str, Any] = {
        "tools": [STRICT],
        "temperature": 0,
        "max_thinking_tokens": 0,
        "max_tokens": 300,
    }
    fields = defaults | fields
    request = body(gateway, fields.pop("prompt", PROMPT), **fields)
    response = await http.post(CHAT, json=request)
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    message = choice["message"]
    calls = [
        (each["function"]["name"], each["function"]["arguments"])
        for each in message.get("tool_calls", ())
    ]
    whole = {
        "content": message["content"] or "",
        "calls": calls,
        "finish": choice["finish_reason"],
        "tokens": response.json()["usage"]["completion_tokens"],
    }
    assert await _streamed(http, request) == whole
    for marker in TEMPLATE_TOKENS:
        assert marker not in whole["content"]
    return whole


async def _streamed(http: httpx.AsyncClient, request: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {"content": "", "calls": []}
    streamed = {**request, "stream": True, "stream_options": {"include_usage": True}}
    async with http.stream("POST", CHAT, json=streamed) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            if chunk.get("usage"):
                result["tokens"] = chunk["usage"]["completion_tokens"]
            for choice in chunk["choices"]:
                result["content"] += choice["delta"].get("content") or ""
                for delta in choice["delta"].get("tool_calls", ()):
                    if "id" in delta:
                        assert delta["index"] == len(result["calls"])
                        result["calls"].append((delta["function"]["name"], ""))
                    name, arguments = result["calls"][delta["index"]]
                    text = arguments + delta["function"]["arguments"]
                    result["calls"][delta["index"]] = (name, text)
                if choice["finish_reason"]:
                    result["finish"] = choice["finish_reason"]
    return result


SCHEMAS: list[Any] = [
    PARAMETERS,
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    None,
    {},
    {"type": "object", "properties": {"q": {"$ref": "#/$defs/Q"}}, "required": ["q"]}
    | {"$defs": {"Q": PARAMETERS}},
    {"$ref": "#/$defs/Q", "$defs": {"Q": PARAMETERS}},
    {"properties": {"s": {"enum": ["x"]}}, "required": ["s"]},
]


@pytest.mark.parametrize("parameters", SCHEMAS)
@pytest.mark.parametrize("choice", ["required", NAMED_CHOICE])
async def test_a_forced_call_matches_its_schema(
    vllm_gateway: Gateway, http: httpx.AsyncClient, choice: Any, parameters: Any
) -> None:
    tool = function(parameters)

    result = await send_both(
        http,
        vllm_gateway,
        tools=[tool],
        tool_choice=choice,
        parallel_tool_calls=False,
        max_tokens=200,
    )

    ((name, arguments),) = result["calls"]
    assert name == "f"
    if result["finish"] == "length":  # by its schema, an integer may be of any length
        assert "maximum" not in json.dumps(parameters)
        assert arguments.startswith("{")
        return
    assert isinstance(json.loads(arguments), dict)
    jsonschema.validate(json.loads(arguments), parameters or {})
    assert result["finish"] == ("stop" if choice is NAMED_CHOICE else "tool_calls")


async def test_max_tokens_cuts_calls_alike_in_streams(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    # The bias makes the model begin a call again and again.
    fields = {"tool_choice": "required", "logit_bias": {"5": 100}}
    whole = await send_both(http, vllm_gateway, **fields, max_tokens=150)
    assert len(whole["calls"]) >= 2

    counts = set()
    for maximum in range(1, 100, 7):
        result = await send_both(http, vllm_gateway, **fields, max_tokens=maximum)
        assert result["content"] == ""
        *complete, last = result["calls"] or [("", "")]
        assert complete == whole["calls"][: len(complete)]
        name, arguments = last
        if name:
            assert whole["calls"][len(complete)][1].startswith(arguments)
        assert result["finish"] == "length"
        counts.add(len(result["calls"]))
    assert {0, 1, 2} <= counts


@pytest.mark.parametrize("stop", ['"s"', "</tool_call>", "<tool_call>", "{", "f"])
async def test_stop_strings_do_not_apply_to_calls(
    vllm_gateway: Gateway, http: httpx.AsyncClient, stop: str
) -> None:
    fields = {"tool_choice": "required", "parallel_tool_calls": False}

    stopped = await send_both(http, vllm_gateway, **fields, stop=[stop])

    assert stopped == await send_both(http, vllm_gateway, **fields)
    ((_, arguments),) = stopped["calls"]
    jsonschema.validate(json.loads(arguments), PARAMETERS)
    assert stopped["finish"] == "tool_calls"


@pytest.mark.parametrize("strict", [None, True])
@pytest.mark.parametrize("bias", [{}, {"1": 11}, {"4": 11}, {"5": 100}, {"1": 11, "4": 11}])
async def test_template_tokens_are_not_in_the_content(
    vllm_gateway: Gateway, http: httpx.AsyncClient, bias: dict[str, float], strict: bool | None
) -> None:
    result = await send_both(
        http,
        vllm_gateway,
        tools=[function(strict=strict)],
        temperature=1,
        seed=5,
        logit_bias=bias,
        max_thinking_tokens=40,
        max_tokens=150,
    )

    for _, arguments in result["calls"]:
        if result["finish"] != "length":
            assert isinstance(json.loads(arguments), dict)
            if strict:
                jsonschema.validate(json.loads(arguments), PARAMETERS)


async def test_max_tokens_cuts_text_and_calls(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    """A bias makes the model call a tool in the middle of its text."""
    whole = await send_both(
        http, vllm_gateway, tool_choice="auto", logit_bias={"5": 100}, max_tokens=200
    )
    assert whole["calls"]
    for maximum in range(20, 60, 10):
        cut = await send_both(
            http, vllm_gateway, tool_choice="auto", logit_bias={"5": 100}, max_tokens=maximum
        )
        assert whole["content"].startswith(cut["content"])
        for partial, complete in zip(cut["calls"], whole["calls"], strict=False):
            assert complete[1].startswith(partial[1])


async def test_long_tool_definitions_count_against_the_context(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    """The demo model's context is short, so long definitions are refused."""
    tools = [
        function(PARAMETERS, name=f"tool_{number}", description="x" * 18_780) for number in range(4)
    ]
    few = [function(PARAMETERS, name=f"tool_{number}") for number in range(6)]

    response = await http.post(CHAT, json=body(vllm_gateway, PROMPT, tools=tools))
    result = await send_both(
        http, vllm_gateway, tools=few, tool_choice="required", parallel_tool_calls=False
    )

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert len(result["calls"]) == 1


CONSTRAINTS: list[dict[str, Any]] = [
    {"json": PARAMETERS},
    {"json": {"type": "strin"}},
    {"json_object": True},
    {"regex": "[ab]{1,3}"},
    {"regex": "(unclosed"},
    {"choice": ["a", "b"]},
    {"grammar": 'root ::= "x"'},
    {"grammar": "root ::= "},
    {"structural_tag": "not JSON"},
    {"structural_tag": "{}"},
    {"structural_tag": '{"structures": [{"begin": true}], "triggers": "("}'},
    {"structural_tag": '{"structures": 3}'},
]


@pytest.mark.parametrize("choice", ["auto", "required", NAMED_CHOICE, None])
async def test_constraints_with_tools_are_answered_or_refused_by_name(
    vllm_gateway: Gateway, http: httpx.AsyncClient, choice: Any
) -> None:
    fields = {} if choice is None else {"tools": [STRICT], "tool_choice": choice}

    async def check(constraint: dict[str, Any]) -> None:
        request = body(vllm_gateway, PROMPT, max_tokens=60, structured_outputs=constraint, **fields)
        response = await http.post(CHAT, json=request)
        if response.status_code != 200:
            assert response.status_code == 400, response.text
            (name,) = constraint
            assert response.json()["error"]["param"] == f"structured_outputs.{name}"

    await asyncio.gather(*map(check, CONSTRAINTS))


async def test_the_demo_template_renders_tools(vllm_gateway: Gateway) -> None:
    assert vllm_gateway.run(vllm_gateway.engine.codec.renders_tools())
