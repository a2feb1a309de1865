"""The names that users rely on: paths, parameters, fields and metrics, as sorted lines.

python -m tests.server.api.surface > tests/server/api/data/surface.txt
"""

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Metric

from proctor.server.api import openapi
from proctor.server.app import create_app
from proctor.server.config.settings import Settings
from proctor.server.engines.fake import FakeEngine
from proctor.server.telemetry.metrics import Metrics

COMBINATIONS = ("allOf", "anyOf", "oneOf")


def surface() -> list[str]:
    """Return every name of the API and of the metrics, one per line."""
    lines = set(_operations(openapi.document(create_app(Settings(), FakeEngine))))
    lines |= set(_metrics(Metrics(Settings()).registry))
    return sorted(lines)


def _operations(document: dict[str, Any]) -> Iterator[str]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name = f"{method.upper()} {path}"
            yield name
            for parameter in operation.get("parameters", ()):
                yield f"{name} {parameter['in']} {parameter['name']}"
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                for field in _fields(content["schema"], document, ()):
                    yield f"{name} request {kind} {field}"
            for status, response in operation["responses"].items():
                for header in response.get("headers", ()):
                    yield f"{name} {status} header {header}"
                for kind, content in response.get("content", {}).items():
                    yield f"{name} {status} {kind}"
                    for field in _fields(content.get("schema", {}), document, ()):
                        yield f"{name} {status} {kind} {field}"


def _fields(schema: Any, document: dict[str, Any], seen: tuple[str, ...]) -> Iterator[str]:
    """Yield the paths of a schema's fields, `[]` for an array's items; a recursion ends them."""
    if not isinstance(schema, dict):
        return
    if reference := schema.get("$ref"):
        if reference not in seen:
            name = reference.removeprefix("#/components/schemas/")
            found = document["components"]["schemas"][name]
            yield from _fields(found, document, (*seen, reference))
        return
    for combination in COMBINATIONS:
        for part in schema.get(combination, ()):
            yield from _fields(part, document, seen)
    for inner in ("items", "additionalProperties"):
        for field in _fields(schema.get(inner), document, seen):
            yield f"[]{field}"
    yield from _fields(schema.get("contentSchema"), document, seen)
    for name, part in schema.get("properties", {}).items():
        yield f".{name}"
        for field in _fields(part, document, seen):
            yield f".{name}{field}"


def _metrics(registry: CollectorRegistry) -> Iterator[str]:
    metric: Metric
    for metric in registry.collect():
        yield f"metric {metric.type} {metric.name}"


if __name__ == "__main__":
    print("\n".join(surface()))  # noqa: T201
