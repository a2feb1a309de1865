"""The examples of `/openapi.json`, each sent as it is."""

from collections.abc import Iterator
from typing import Any

import pytest

from proctor.server.engines.fake import FakeEngine, Script
from tests.server.harness import client

OF_WHAT_EXISTS = {
    *("retrieveResponse", "deleteResponse", "cancelResponse", "listResponseItems"),
    *("giveFeedback", "retrieveSession"),
}
"""Operations on something that a request has made, which no example can name."""


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


@pytest.mark.parametrize("name", ["fake", "organization/model"])
async def test_every_operation_can_be_tried_as_it_is(name: str) -> None:
    async with client(FakeEngine(Script(("x",), "36"), name=name)) as http:
        document = (await http.get("/openapi.json")).json()
        statuses = {}
        for method, path, operation in operations(document):
            inside = {
                each["name"]: each.get("example", "")
                for each in operation.get("parameters", [])
                if each["in"] == "path"
            }
            content = operation.get("requestBody", {}).get("content", {})
            example = content.get("application/json", {}).get("example")
            url = path.format_map(inside)
            answer = await http.request(method, url, json=example)
            statuses[operation["operationId"]] = answer.status_code

    assert {name for name, status in statuses.items() if status != 200} == OF_WHAT_EXISTS
    assert len(statuses) > 15


async def test_every_body_has_an_example_unless_it_names_what_exists() -> None:
    async with client(FakeEngine()) as http:
        document = (await http.get("/openapi.json")).json()
    without = {
        operation["operationId"]
        for _, _, operation in operations(document)
        if "requestBody" in operation
        and "example" not in operation["requestBody"]["content"]["application/json"]
    }
    assert without == {"giveFeedback"}
