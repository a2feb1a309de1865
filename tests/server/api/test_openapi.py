from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator, ValidationError

from proctor.server.app import create_app
from proctor.server.engines.fake import FakeEngine
from tests.server.harness import CHAT, body, client, settings
from tests.server.openapi_check import assert_matches_openapi, document, validator

POSTS = {CHAT, "/v1/completions", "/v1/route", "/tokenize", "/detokenize"}
GETS = {"/v1/models", "/v1/models/{name}", "/health", "/ready", "/metrics"}
EFFORTS = dict.fromkeys(("none", "minimal", "low", "medium", "high", "xhigh", "max"), "less")
LEVELS = dict.fromkeys(("none", "low", "medium", "high"), "more")
BODILESS = {"400", "405", "431", "500"}

UNBOUNDED = {
    "TextPart.text",
    "Function.description",
    "JsonSchema.description",
    "Message.content",
    "Message.reasoning_content",
    "Message.reasoning",
    "Message.thinking",
    "FunctionCall.arguments",
    "CompletionRequest.prompt",
    "TokenizeRequest.prompt",
    "TextBlock.text",
    "ThinkingBlock.thinking",
    "ToolResultBlock.content",
    "InputMessage.content",
    "InputTool.description",
    "MessagesRequest.system",
    "CountTokensRequest.system",
    "CallOutputItem.output",
    "ContentText.text",
    "CustomCallItem.input",
    "CustomTool.description",
    "FunctionCallItem.arguments",
    "FunctionTool.description",
    "MessageItem.content",
    "NamespaceTool.description",
    "RefusalPart.refusal",
    "ResponsesRequest.input",
    "ResponsesRequest.instructions",
    "ShellOutputItem.output",
}
"""Texts that are only bounded by the limits on bodies and on the context."""


def schemas() -> dict[str, Any]:
    found: dict[str, Any] = document()["components"]["schemas"]
    return found


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object within a JSON value."""
    if isinstance(value, dict):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from walk(each)


def of_requests() -> set[str]:
    """Return the names of the schemas that requests consist of."""
    bodies = [
        operation["requestBody"] for _, operation in operations() if "requestBody" in operation
    ]
    names, found = set[str](), refs(bodies)
    while found - names:
        names |= found
        found = refs([schemas()[name] for name in names])
    return names


def refs(value: Any) -> set[str]:
    return {part["$ref"].rpartition("/")[2] for part in walk(value) if "$ref" in part}


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document()["paths"].items():
        for operation in methods.values():
            yield path, operation


async def test_the_served_document_has_the_limits_of_the_server() -> None:
    tiers = [{"name": "less", "max_tokens": 8}, {"name": "more", "max_tokens": 80}]
    overrides = {"tiers": tiers, "efforts": EFFORTS, "router": {"levels": LEVELS}}
    async with client(FakeEngine(), limits={"max_choices": 3}, **overrides) as http:
        served = (await http.get("/openapi.json")).json()

    parts, whole = served["components"]["schemas"], schemas()
    chat, raw = (parts[name]["properties"] for name in ("ChatRequest", "CompletionRequest"))
    assert chat["budget_tier"]["anyOf"][0]["enum"] == ["less", "more", "auto"]
    assert raw["budget_tier"]["anyOf"][0]["enum"] == ["less", "more"]
    assert chat["n"]["anyOf"][0]["maximum"] == raw["n"]["anyOf"][0]["maximum"] == 3
    ids = parts["DetokenizeRequest"]["properties"]["tokens"]["items"]
    assert ids["maximum"] == FakeEngine().codec.vocabulary_size - 1
    headers = [each["name"] for each in served["paths"][CHAT]["post"]["parameters"]]
    assert "idempotency-key" not in headers
    assert served["paths"].keys() == document()["paths"].keys()
    assert {name for name in whole if whole[name] != parts[name]} == {
        "ChatRequest",
        "CompletionRequest",
        "DetokenizeRequest",
        "MessagesRequest",
        "ResponsesRequest",
    }


async def test_before_the_model_is_loaded_the_vocabulary_is_unknown() -> None:
    app = create_app(settings(), FakeEngine)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as http:
        served = (await http.get("/openapi.json")).json()

    ids = served["components"]["schemas"]["DetokenizeRequest"]["properties"]["tokens"]["items"]
    assert ids["exclusiveMaximum"] == 2**31


def test_every_operation_and_reference_is_complete() -> None:
    by_path = dict(operations())
    assert by_path.keys() >= POSTS | GETS
    assert len({operation["operationId"] for operation in by_path.values()}) == len(by_path)
    for path, operation in by_path.items():
        assert operation["summary"], path
        assert "Raises" not in operation["description"]
        for parameter in operation.get("parameters", []):
            assert parameter["description"]
        expected = BODILESS | {"200"}
        if path in POSTS:
            expected |= {"403", "404", "413", "415", "503"}
        assert expected <= operation["responses"].keys(), path
        assert "422" not in operation["responses"]
    assert refs(document()) <= schemas().keys()
    for schema in schemas().values():
        Draft202012Validator.check_schema(schema)


def test_every_field_has_a_description() -> None:
    undescribed = [
        f"{name}.{field}"
        for name, schema in schemas().items()
        for field, field_schema in schema.get("properties", {}).items()
        if not field_schema.get("description")
    ]
    assert "max_thinking_tokens" in schemas()["ChatRequest"]["properties"]
    assert undescribed == []


def test_every_request_field_has_bounds() -> None:
    unbounded = set()
    for name in of_requests():
        for field, field_schema in schemas()[name].get("properties", {}).items():
            for part in walk(field_schema):
                kind, closed = part.get("type"), "enum" in part or "const" in part
                if kind in ("integer", "number"):
                    lower = {"minimum", "exclusiveMinimum"} & part.keys()
                    upper = {"maximum", "exclusiveMaximum"} & part.keys()
                    assert lower, (name, field)
                    assert upper, (name, field)
                elif kind == "array":
                    assert "maxItems" in part, (name, field)
                elif kind == "string" and not closed and "maxLength" not in part:
                    unbounded.add(f"{name}.{field}")

    assert {"ChatRequest", "Message", "Thinking"} <= of_requests()
    assert unbounded == UNBOUNDED


@pytest.mark.parametrize(
    ("fields", "valid"),
    [
        ({}, True),
        ({"user": 3}, True),
        ({"whatever": None}, True),
        ({"functions": []}, True),
        ({"functions": [1]}, False),
        ({"whatever": 1}, False),
        ({"thinking": {"budgt": 1}}, False),
        ({"top_p": 0}, False),
        ({"n": 1.5}, False),
        ({"stop": [""]}, False),
        ({"max_thinking_tokens": -2}, False),
        ({"messages": []}, False),
        ({"model": "x" * 257}, False),
        ({"model": None}, True),
        ({"messages": [{"role": "user", "content": "x", "added": 1}]}, True),
        ({"messages": [{"role": "assistant", "refusal": "x"}]}, False),
        ({"messages": [{"role": "assistant", "refusal": None}]}, True),
        ({"structured_outputs": {}}, False),
        ({"structured_outputs": {"regex": None}}, False),
        ({"structured_outputs": {"regex": "a", "json": None}}, True),
        ({"structured_outputs": {"regex": "a", "user": "me"}}, True),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, False),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "text"}}, True),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}, False),
        ({"response_format": {"type": "json_schema"}}, False),
        ({"response_format": {"type": "json_object", "json_schema": {"name": "a"}}}, False),
        ({"response_format": {"type": "json_object", "json_schema": None}}, True),
        ({"top_logprobs": 0}, True),
        ({"top_logprobs": 1}, False),
        ({"top_logprobs": 1, "logprobs": False}, False),
        ({"top_logprobs": 1, "logprobs": True}, True),
        ({"stream_options": {}}, False),
        ({"stream_options": {}, "stream": True}, True),
        ({"stream_options": None}, True),
        ({"tool_choice": "required"}, False),
        ({"tool_choice": "required", "tools": []}, False),
        ({"tool_choice": "none"}, True),
        ({"thinking": {"continuations": 9}}, False),
        ({"priority": 0.0}, True),
        ({"n": 2.0}, True),
    ],
)
async def test_the_chat_schema_agrees_with_the_validation(
    fields: dict[str, Any], valid: bool
) -> None:
    request = body(**fields)

    async with client(FakeEngine()) as http:
        assert ((await http.post(CHAT, json=request)).status_code == 200) is valid

    assert validator(schemas()["ChatRequest"]).is_valid(request) is valid


@pytest.mark.parametrize(
    ("path", "name", "fields", "valid"),
    [
        ("/v1/completions", "CompletionRequest", {"reasoning": {"exclude": True}}, False),
        ("/v1/completions", "CompletionRequest", {"reasoning": {"exclude": False}}, True),
        ("/v1/completions", "CompletionRequest", {"reasoning": None}, True),
        ("/v1/completions", "CompletionRequest", {"stream_options": {}}, False),
        ("/v1/feedback", "FeedbackRequest", {}, False),
        ("/v1/feedback", "FeedbackRequest", {"correct": None}, False),
        ("/v1/feedback", "FeedbackRequest", {"correct": True, "score": 1}, False),
        ("/v1/feedback", "FeedbackRequest", {"correct": True, "score": None}, True),
    ],
)
async def test_other_request_schemas_agree_with_the_validation(
    path: str, name: str, fields: dict[str, Any], valid: bool
) -> None:
    required = {"request_id": "x"} if name == "FeedbackRequest" else {"prompt": "hi"}

    async with client(FakeEngine()) as http:
        status = (await http.post(path, json={**required, **fields})).status_code

    assert (status != 400) is valid
    assert validator(schemas()[name]).is_valid({**required, **fields}) is valid


async def test_undocumented_responses_are_detected() -> None:
    async with client(FakeEngine()) as http:
        answer = await http.get("/v1/models")
    listed = answer.json()
    listed["data"][0]["secret"] = 1

    with pytest.raises(ValidationError, match="secret"):
        await assert_matches_openapi(httpx.Response(200, json=listed, request=answer.request))
    with pytest.raises(AssertionError, match="418"):
        await assert_matches_openapi(httpx.Response(418, json={}, request=answer.request))
