"""Holds answers against the server's description of itself."""

import gzip
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx
import orjson
from jsonschema import Draft202012Validator

from proctor.server.api import openapi
from proctor.server.app import create_app
from proctor.server.config.settings import Settings
from proctor.server.engines.fake import FakeEngine

HEADERS = (
    *("x-request-id", "x-budget-tier", "x-ignored-fields"),
    *("retry-after", "allow", "accept-encoding"),
)

GZIP = b"\x1f\x8b"


@cache
def document() -> dict[str, Any]:
    """The description, which is the same whatever the engine and the settings."""
    return openapi.document(create_app(Settings(), FakeEngine))


async def assert_described(response: httpx.Response) -> None:
    """See that an answer is of a kind that the description has for its request.

    A body that was accepted must be as the description has it, too.
    """
    operation = _operation(response.request)
    if operation is None:
        return
    await response.aread()
    told = operation["responses"].get(str(response.status_code))
    assert told is not None, f"{response.status_code} is not described: {response.text}"
    if response.is_success and "requestBody" in operation:
        taken = operation["requestBody"]["content"]["application/json"]["schema"]
        sent = response.request.content
        if sent.startswith(GZIP):
            sent = gzip.decompress(sent)
        validator(taken).validate(orjson.loads(sent))
    kind = response.headers["content-type"].partition(";")[0]
    assert kind in told["content"], f"{kind} is not described"
    described = told["content"][kind]["schema"]
    if kind == "text/event-stream":
        (_, chunk) = described["properties"]["data"]["anyOf"]
        for data in _data(response.text):
            validator(chunk["contentSchema"]).validate(data)
    elif kind == "application/json":
        validator(described).validate(response.json())
    for name in {
        "x-request-id",
        "x-budget-tier",
        "x-ignored-fields",
        "retry-after",
        "allow",
        "accept-encoding",
    }:
        assert (name not in response.headers) or name in told["headers"], name


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    """Of a schema that refers to the document's components."""
    return Draft202012Validator({**schema, "components": document()["components"]})


def _operation(request: httpx.Request) -> dict[str, Any] | None:
    for path, operations in document()["paths"].items():
        prefix, brace, _ = path.partition("{")
        here = request.url.path
        if here == path or (brace and here.startswith(prefix)):
            operation: dict[str, Any] | None = operations.get(request.method.lower())
            return operation
    return None


def _data(stream: str) -> Iterator[Any]:
    for line in stream.splitlines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield orjson.loads(line.removeprefix("data: "))
