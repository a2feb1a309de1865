import re
from typing import Any

import httpx
import pytest

from proctor.server.engines.base import Prompt
from proctor.server.engines.fake import FakeEngine
from tests.server.harness import CHAT, body, client, running_app

TEXT = {"role": "user", "content": "hi"}
CALL = {"id": "x", "type": "function", "function": {"name": "add", "arguments": "{}"}}
ADD = {"type": "function", "function": {"name": "add"}}


def assert_error(response: httpx.Response, status: int, param: str | None) -> dict[str, Any]:
    """Check the shape of an error response, and return its error."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param, error["message"]
    assert error["message"]
    return error


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 3}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [TEXT, {**TEXT, "tool_calls": [CALL]}]}, "messages[1].tool_calls"),
        ({"messages": [TEXT, {**TEXT, "tool_call_id": "x"}]}, "messages[1].tool_call_id"),
        (
            {"messages": [TEXT, {"role": "assistant", "tool_calls": [{"id": "x"}]}]},
            "messages[1].tool_calls[0].function",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": 2**63}, "seed"),
        ({"seed": -(2**63) - 1}, "seed"),
        ({"seed": 10**400}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 1e300}, "seed"),
        ({"stop": [""]}, "stop[0]"),
        ({"stop": 1}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": True}, "n"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {}}, "stream_options"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        ({"reasoning_format": "loud"}, "reasoning_format"),
        ({"max_thinking_tokens": -2}, "max_thinking_tokens"),
        ({"max_thinking_tokens": "8"}, "max_thinking_tokens"),
        ({"max_thinking_tokens": 1.5}, "max_thinking_tokens"),
        ({"min_thinking_tokens": -1}, "min_thinking_tokens"),
        ({"min_thinking_tokens": 9, "max_thinking_tokens": 8}, "min_thinking_tokens"),
        ({"min_thinking_tokens": 10**6}, "min_thinking_tokens"),
        ({"min_thinking_tokens": 90, "max_tokens": 100}, "min_thinking_tokens"),
        ({"thinking": {"type": "on"}}, "thinking.type"),
        ({"thinking": {"on_loop": "shout"}}, "thinking.on_loop"),
        ({"thinking": {"landing": "soft"}}, "thinking.landing"),
        ({"thinking": {"continuations": 9}}, "thinking.continuations"),
        ({"thinking": {"continuation_text": ""}}, "thinking.continuation_text"),
        ({"thinking": {"continuation_text": []}}, "thinking.continuation_text"),
        ({"thinking": {"continuation_text": "x" * 65}}, "thinking.continuation_text"),
        ({"thinking": {"wrap_up_text": "x" * 65}}, "thinking.wrap_up_text"),
        ({"max_thinking_tokens": 0, "thinking": {"continuations": 1}}, "thinking.continuations"),
        ({"thinking": {"type": "disabled", "min_tokens": 5}}, "thinking.min_tokens"),
        ({"thinking": {"type": "disabled", "budget_tokens": 5}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        ({"max_thinking_tokens": 5, "thinking": {"budget_tokens": 6}}, "max_thinking_tokens"),
        ({"min_thinking_tokens": 5, "thinking": {"min_tokens": 6}}, "min_thinking_tokens"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "mcp", "function": {"name": "a"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        (
            {"tools": [{**ADD, "function": {"name": "a", "parameters": {"maximum": 2**64}}}]},
            "tools[0].function.parameters",
        ),
        ({"tools": [ADD] * 129}, "tools"),
        ({"tools": [ADD, ADD]}, "tools"),
        ({"tools": [ADD]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": "always"}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        (
            {"tools": [ADD], "tool_choice": {"type": "function", "function": {"name": "mul"}}},
            "tool_choice",
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name",
        ),
        (
            {
                "response_format": {"type": "json_object"},
                "structured_outputs": {"json_object": True},
            },
            "response_format",
        ),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"json_object": False}}, "structured_outputs.json_object"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": 3}, "logprobs"),
        ({"logit_bias": {"99999999999": 1}}, "logit_bias.99999999999"),
        ({"logit_bias": {"-1": 1}}, "logit_bias.-1"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"logit_bias": {str(n): 1 for n in range(1025)}}, "logit_bias"),
        ({"frequency_penalty": 2.5}, "frequency_penalty"),
        ({"presence_penalty": -2.5}, "presence_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 1.1}, "min_p"),
        ({"reasoning_effort": "lots"}, "reasoning_effort"),
        ({"reasoning_effort": 3}, "reasoning_effort"),
        ({"reasoning": {"effort": "low", "budget": 3}}, "reasoning.budget"),
        ({"nvext": {"max_thinking_tokens": -2}}, "nvext.max_thinking_tokens"),
        ({"chat_template_kwargs": {"tone": "dry"}}, "chat_template_kwargs.tone"),
        ({"budget_tier": "vast"}, "budget_tier"),
        ({"enable_thinking": "no"}, "enable_thinking"),
        ({"kv_transfer_params": {"x": 1}}, "kv_transfer_params"),
        ({"extra_args": {"x": 1}}, "extra_args"),
        ({"vllm_xargs": {"x": 1}}, "vllm_xargs"),
        ({"stop_token_ids": [10**9]}, "stop_token_ids"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
    ],
)
async def test_an_invalid_field_is_named(fields: dict[str, Any], param: str) -> None:
    async with client(FakeEngine()) as http:
        response = await http.post(CHAT, json={**body(), **fields})

    assert assert_error(response, 400, param)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 6}, ["max_tokens", "max_completion_tokens"]),
        (
            {"max_thinking_tokens": 5, "thinking": {"budget_tokens": 6}},
            ["max_thinking_tokens", "thinking.budget_tokens"],
        ),
        (
            {"min_thinking_tokens": 5, "thinking": {"type": "disabled"}},
            ["min_thinking_tokens", "thinking.type"],
        ),
        ({"max_thinking_tokns": 5}, ["max_thinking_tokns", "max_thinking_tokens"]),
        ({"min_thinking_token": 5}, ["min_thinking_token", "min_thinking_tokens"]),
        ({"temprature": 1}, ["temprature", "temperature"]),
        ({"thinking_tokens_budget": 5}, ["thinking_tokens_budget", "thinking_token_budget"]),
        ({"thinking": {"budget": 5}}, ["thinking.budget", "budget_tokens"]),
    ],
)
async def test_messages_name_all_fields_involved(fields: dict[str, Any], names: list[str]) -> None:
    async with client(FakeEngine()) as http:
        response = await http.post(CHAT, json=body(**fields))

    assert response.status_code == 400
    assert all(f"'{name}'" in response.json()["error"]["message"] for name in names)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"model": NaN',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
        b'{"model": "\\ud800", "messages": []}',
        b'{"model": "\xed\xa0\x80", "messages": []}',
        b'{"n": ' + b"9" * 5000 + b"}",
    ],
)
async def test_a_body_that_is_not_a_json_object(raw: bytes) -> None:
    async with client(FakeEngine()) as http:
        assert_error(await http.post(CHAT, content=raw), 400, None)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_a_number_that_json_does_not_have(number: str) -> None:
    raw = '{"model":"fake","messages":[{"role":"user","content":"x"}],"temperature":%s}'

    async with client(FakeEngine()) as http:
        response = await http.post(CHAT, content=raw % number)

    assert_error(response, 400, "temperature")


async def test_errors_do_not_repeat_long_input() -> None:
    async with client(FakeEngine()) as http:
        for fields in ({"thinking_" * 10**5: 1}, {"model": "m" * 10**6}, {"x" * 10**6: 1}):
            response = await http.post(CHAT, json={**body(), **fields})
            assert response.status_code == 400
            assert len(response.content) < 1000


async def test_an_unknown_model_is_a_404() -> None:
    async with client(FakeEngine()) as http:
        response = await http.post(CHAT, json=body(model="gpt-9"))
        found = await http.get("/v1/models/fake")
        missing = await http.get("/v1/models/org/other")

    assert assert_error(response, 404, "model")["code"] == "model_not_found"
    assert found.json()["id"] == "fake"
    assert assert_error(missing, 404, None)["code"] == "model_not_found"


@pytest.mark.parametrize("length", [64, 10_000])
async def test_messages_longer_than_the_context(length: int) -> None:
    async with client(FakeEngine(context_length=64)) as http:
        long = {"role": "user", "content": "x" * length}
        response = await http.post(CHAT, json=body(messages=[long]))

    assert assert_error(response, 400, "messages")["code"] == "context_length_exceeded"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_more_tokens_than_the_context_holds(name: str) -> None:
    async with client(FakeEngine(context_length=64)) as http:
        response = await http.post(CHAT, json=body(**{name: 60}))

    assert assert_error(response, 400, name)["code"] == "context_length_exceeded"


async def test_an_error_of_the_chat_template_is_a_400() -> None:
    engine = FakeEngine()

    async def refuse(*_: Any, **__: Any) -> Prompt:
        raise ValueError("roles must alternate")

    engine.codec.render = refuse  # type: ignore[method-assign]
    async with client(engine) as http:
        response = await http.post(CHAT, json=body())

    assert "roles must alternate" in assert_error(response, 400, "messages")["message"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit(chunked: bool) -> None:
    read = 0

    async def chunks() -> Any:
        nonlocal read
        for _ in range(100):
            read += 1
            yield b"x" * 1000

    content = chunks() if chunked else b"x" * 100_000
    async with client(FakeEngine(), limits={"max_body_bytes": 5000}) as http:
        response = await http.post(CHAT, content=content)

    assert_error(response, 413, None)
    assert read in (0, 6)


async def test_paths_and_methods() -> None:
    async with client(FakeEngine()) as http:
        assert_error(await http.get("/nowhere"), 404, None)
        assert_error(await http.post("/v1/chat/completions/"), 404, None)
        response = await http.get(CHAT)

    assert_error(response, 405, None)
    assert response.headers["allow"] == "POST"


async def test_an_engine_that_dies_is_a_503() -> None:
    async with client(FakeEngine(die_after=3)) as http:
        dying = await http.post(CHAT, json=body())
        dead = await http.post(CHAT, json=body(stream=True))
        ready = await http.get("/ready")
        health = await http.get("/health")

    for response in (dying, dead, ready):
        assert assert_error(response, 503, None)["type"] == "server_error"
        assert response.headers["retry-after"]
    assert health.status_code == 200


async def test_ignored_fields_are_listed() -> None:
    harmless = {"tools": [], "tool_choice": "auto", "frequency_penalty": 0, "logit_bias": None}
    fields = {"user": "me", "store": False, "stream": True, **harmless}

    async with client(FakeEngine()) as http:
        options = {"include_obfuscation": False}
        response = await http.post(CHAT, json=body(**fields, stream_options=options))
        plain = await http.post(CHAT, json=body())

    listed = response.headers["x-ignored-fields"].split(", ")
    assert listed == ["user", "store", "stream_options.include_obfuscation"]
    assert "x-ignored-fields" not in plain.headers


class Broken(FakeEngine):
    async def health(self) -> None:
        raise ZeroDivisionError("a secret of the server's")


async def test_an_unexpected_error_reveals_only_its_request_id() -> None:
    headers = {"x-request-id": "mine", "origin": "http://localhost:5173"}
    async with running_app(Broken()) as app:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            response = await http.post(CHAT, json=body(), headers=headers)
            metrics = (await http.get("/metrics")).text

    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == "mine"
    # A web page must be able to read the error.
    assert response.headers["access-control-allow-origin"] == headers["origin"]
    assert 'proctor_rejected_total{reason="internal"} 1.0' in metrics
    assert re.search(r'proctor_requests_total{[^}]*status="500"[^}]*} 1.0', metrics)
