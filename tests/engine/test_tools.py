"""Tool calls of the real engine: one outcome, streamed and whole, whatever cuts them."""

import asyncio
import json
from typing import Any

import httpx
import jsonschema
import pytest

from tests.engine.asking import CHAT, body
from tests.engine.served import Served
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
TEMPLATE = ("<think>", "</think>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<tool_call>")


def function(parameters: Any = PARAMETERS, **fields: Any) -> dict[str, Any]:
    told = {"name": "f", "parameters": parameters, **fields}
    return {"type": "function", "function": {k: v for k, v in told.items() if v is not None}}


F = function(strict=True)
NAMED = {"type": "function", "function": {"name": "f"}}


@pytest.fixture
async def http(served: Served) -> Any:
    async with httpx.AsyncClient(base_url=served.url, timeout=PATIENCE) as made:
        yield made


async def both(http: httpx.AsyncClient, served: Served, **fields: Any) -> dict[str, Any]:
    """The one outcome of a request, streamed and whole: message, calls and finish."""
    fields = {"tools": [F], "temperature": 0, "max_thinking_tokens": 0, "max_tokens": 300} | fields
    request = body(served, fields.pop("prompt", PROMPT), **fields)
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
    for marker in TEMPLATE:
        assert marker not in whole["content"]
    return whole


async def _streamed(http: httpx.AsyncClient, request: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"content": "", "calls": []}
    asked = {**request, "stream": True, "stream_options": {"include_usage": True}}
    async with http.stream("POST", CHAT, json=asked) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            if chunk.get("usage"):
                found["tokens"] = chunk["usage"]["completion_tokens"]
            for choice in chunk["choices"]:
                found["content"] += choice["delta"].get("content") or ""
                for delta in choice["delta"].get("tool_calls", ()):
                    if "id" in delta:
                        assert delta["index"] == len(found["calls"])
                        found["calls"].append((delta["function"]["name"], ""))
                    name, arguments = found["calls"][delta["index"]]
                    told = arguments + delta["function"]["arguments"]
                    found["calls"][delta["index"]] = (name, told)
                if choice["finish_reason"]:
                    found["finish"] = choice["finish_reason"]
    return found


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
@pytest.mark.parametrize("choice", ["required", NAMED])
async def test_a_forced_call_keeps_to_its_schema(
    served: Served, http: httpx.AsyncClient, choice: Any, parameters: Any
) -> None:
    bound = function(parameters)

    found = await both(
        http, served, tools=[bound], tool_choice=choice, parallel_tool_calls=False, max_tokens=200
    )

    ((name, arguments),) = found["calls"]
    assert name == "f"
    if found["finish"] == "length":  # an integer has no end by its schema
        assert "maximum" not in json.dumps(parameters)
        assert arguments.startswith("{")
        return
    assert isinstance(json.loads(arguments), dict)
    jsonschema.validate(json.loads(arguments), parameters or {})
    assert found["finish"] == ("stop" if choice is NAMED else "tool_calls")


async def test_calls_are_cut_the_same_everywhere(served: Served, http: httpx.AsyncClient) -> None:
    # The model is fond of the token that begins one.
    asked = {"tool_choice": "required", "logit_bias": {"5": 100}}
    whole = await both(http, served, **asked, max_tokens=150)
    assert len(whole["calls"]) >= 2

    seen = set()
    for most in range(1, 100, 7):
        found = await both(http, served, **asked, max_tokens=most)
        assert found["content"] == ""
        *complete, last = found["calls"] or [("", "")]
        assert complete == whole["calls"][: len(complete)]
        name, arguments = last
        if name:
            assert whole["calls"][len(complete)][1].startswith(arguments)
        assert found["finish"] == "length"
        seen.add(len(found["calls"]))
    assert {0, 1, 2} <= seen


@pytest.mark.parametrize("stop", ['"s"', "</tool_call>", "<tool_call>", "{", "f"])
async def test_a_stop_string_in_a_call_stops_nothing(
    served: Served, http: httpx.AsyncClient, stop: str
) -> None:
    asked = {"tool_choice": "required", "parallel_tool_calls": False}

    stopped = await both(http, served, **asked, stop=[stop])

    assert stopped == await both(http, served, **asked)
    ((_, arguments),) = stopped["calls"]
    jsonschema.validate(json.loads(arguments), PARAMETERS)
    assert stopped["finish"] == "tool_calls"


@pytest.mark.parametrize("strict", [None, True])
@pytest.mark.parametrize("bias", [{}, {"1": 11}, {"4": 11}, {"5": 100}, {"1": 11, "4": 11}])
async def test_no_token_of_the_template_is_content(
    served: Served, http: httpx.AsyncClient, bias: dict[str, float], strict: bool | None
) -> None:
    found = await both(
        http,
        served,
        tools=[function(strict=strict)],
        temperature=1,
        seed=5,
        logit_bias=bias,
        max_thinking_tokens=40,
        max_tokens=150,
    )

    for _, arguments in found["calls"]:
        if found["finish"] != "length":
            assert isinstance(json.loads(arguments), dict)
            if strict:
                jsonschema.validate(json.loads(arguments), PARAMETERS)


async def test_a_call_is_cut_in_text_and_calls_alike(
    served: Served, http: httpx.AsyncClient
) -> None:
    """The model is made to call by itself, in the middle of its text."""
    whole = await both(http, served, tool_choice="auto", logit_bias={"5": 100}, max_tokens=200)
    assert whole["calls"]
    for most in range(20, 60, 10):
        cut = await both(http, served, tool_choice="auto", logit_bias={"5": 100}, max_tokens=most)
        assert whole["content"].startswith(cut["content"])
        for one, all_of_it in zip(cut["calls"], whole["calls"], strict=False):
            assert all_of_it[1].startswith(one[1])


async def test_as_many_tools_as_agents_have(served: Served, http: httpx.AsyncClient) -> None:
    """The demo model's context is short, so their length shows in what it is refused for."""
    tools = [function(PARAMETERS, name=f"tool_{at}", description="x" * 18_780) for at in range(4)]
    few = [function(PARAMETERS, name=f"tool_{at}") for at in range(6)]

    response = await http.post(CHAT, json=body(served, PROMPT, tools=tools))
    found = await both(http, served, tools=few, tool_choice="required", parallel_tool_calls=False)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert len(found["calls"]) == 1


FORMS: list[dict[str, Any]] = [
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


@pytest.mark.parametrize("choice", ["auto", "required", NAMED, None])
async def test_a_form_beside_tools_is_served_or_refused_by_name(
    served: Served, http: httpx.AsyncClient, choice: Any
) -> None:
    fields = {} if choice is None else {"tools": [F], "tool_choice": choice}

    async def one(form: dict[str, Any]) -> None:
        request = body(served, PROMPT, max_tokens=60, structured_outputs=form, **fields)
        response = await http.post(CHAT, json=request)
        if response.status_code != 200:
            assert response.status_code == 400, response.text
            (name,) = form
            assert response.json()["error"]["param"] == f"structured_outputs.{name}"

    await asyncio.gather(*map(one, FORMS))


async def test_the_template_is_known_to_tell_of_tools(served: Served) -> None:
    assert served.run(served.engine.codec.renders_tools())
