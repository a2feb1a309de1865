"""The schema that constrains the arguments of a tool call."""

from collections.abc import Mapping
from typing import Any

import orjson

from proctor.server.engines.grammars.complexity import check_schema
from proctor.server.engines.grammars.xgrammar_schemas import (
    MAX_BYTES,
    Schema,
    UnsupportedSchema,
    rewrite,
    without_annotations,
)
from proctor.server.errors import UnsupportedRequest

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}


def arguments_schema(parameters: Mapping[str, Any] | None, field: str) -> Mapping[str, Any]:
    """Return a schema that a grammar can enforce, no wider than the function's own.

    Args:
        parameters: the function's own schema.
        field: its path in the request.

    Raises:
        UnsupportedRequest: if no grammar can enforce it, or it allows anything but objects.
    """
    if not parameters:
        return NO_ARGUMENTS
    check_schema(parameters, field)
    try:
        _check_length(without_annotations(dict(parameters)))
        schema = rewrite(dict(parameters))
        object_schema: dict[str, Any] = _ObjectsOnly(schema).restrict(schema)
        _check_length(object_schema)
        return object_schema
    except UnsupportedSchema as error:
        raise UnsupportedRequest(
            field, f"'{field}' cannot constrain a call's arguments: {error}"
        ) from None
    except RecursionError:
        raise UnsupportedRequest(field, f"'{field}' has references nested too deeply") from None
    except (AttributeError, TypeError, ValueError, KeyError):
        raise UnsupportedRequest(field, f"'{field}' is not a JSON schema") from None


def _check_length(schema: Schema) -> None:
    if len(orjson.dumps(schema)) > MAX_BYTES:
        raise UnsupportedSchema(f"it is longer than {MAX_BYTES} bytes without descriptions")


class _ObjectsOnly:
    """Checks that a schema only allows objects; visits each reference once."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._seen: dict[str, bool] = {}

    def restrict(self, schema: Schema) -> Schema:
        """Return the schema restricted to objects.

        Raises:
            UnsupportedSchema: if it also allows other values.
        """
        if isinstance(schema, dict):
            kind = schema.get("type")
            if kind == "object" or (isinstance(kind, list) and "object" in kind):
                return {**schema, "type": "object"}
            if "$ref" in schema and self._leads_to_objects(schema["$ref"]):
                return schema
            if isinstance(branches := schema.get("anyOf"), list):
                return {**schema, "anyOf": [self.restrict(each) for each in branches]}
            asserted = {"enum", "const", "$ref", "items", "prefixItems"} & schema.keys()
            if kind is None and not asserted:
                return {**schema, "type": "object"}
        raise UnsupportedSchema("it must describe an object")

    def _leads_to_objects(self, reference: str) -> bool:
        if reference not in self._seen:
            self._seen[reference] = False  # for now: the reference may be recursive
            target = self._resolve(reference)
            self._seen[reference] = self.restrict(target) == target
        return self._seen[reference]

    def _resolve(self, reference: str) -> Schema:
        target: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            target = target.get(name) if isinstance(target, dict) else None
        if target is None:
            raise UnsupportedSchema(f"its '$ref' to '{reference}' does not exist")
        return target
