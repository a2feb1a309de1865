"""Validate responses against the server's own OpenAPI document."""

import gzip
import re
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

PARAMETER = re.compile(r"\{\w+\}")
HEADERS = (
    *("x-request-id", "x-budget-tier", "x-ignored-fields", "x-max-tokens"),
    *("retry-after", "allow", "accept-encoding"),
)
"""Headers that must be documented wherever a response has them."""

GZIP_MAGIC = b"\x1f\x8b"


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document, which depends neither on the engine nor on the settings."""
    return openapi.document(create_app(Settings(), FakeEngine))


async def assert_matches_openapi(response: httpx.Response) -> None:
    """Check a response, and the request body if it was accepted, against the document.

    Does nothing for requests of operations that the document does not have.
    """
    operation = _operation(response.request)
    if operation is None:
        return
    await response.aread()
    documented = operation["responses"].get(str(response.status_code))
    assert documented is not None, f"{response.status_code} is undocumented: {response.text}"
    if response.is_success and "requestBody" in operation:
        request_schema = operation["requestBody"]["content"]["application/json"]["schema"]
        content = response.request.content
        if content.startswith(GZIP_MAGIC):
            content = gzip.decompress(content)
        validator(request_schema).validate(orjson.loads(content))
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type in documented["content"], f"{media_type} is undocumented"
    schema = documented["content"][media_type]["schema"]
    if media_type == "text/event-stream":
        data_schema = schema["properties"]["data"]
        *_, chunk = data_schema.get("anyOf", [data_schema])
        for data in _stream_data(response.text):
            validator(chunk["contentSchema"]).validate(data)
    elif media_type == "application/json":
        validator(schema).validate(response.json())
    for name in HEADERS:
        assert (name not in response.headers) or name in documented["headers"], name


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    """Return the validator of a schema that may refer to the document's components."""
    return Draft202012Validator({**schema, "components": document()["components"]})


def _operation(request: httpx.Request) -> dict[str, Any] | None:
    paths: dict[str, Any] = document()["paths"]
    for path in sorted(paths, key=len, reverse=True):  # the most specific first
        if re.fullmatch(PARAMETER.sub(".+", path), request.url.path):
            operation: dict[str, Any] | None = paths[path].get(request.method.lower())
            return operation
    return None


def _stream_data(stream: str) -> Iterator[Any]:
    for line in stream.split("\n"):
        if line.startswith("data: ") and line != "data: [DONE]":
            yield orjson.loads(line.removeprefix("data: "))
