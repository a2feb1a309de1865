"""The schema that the arguments of a tool call are bound to."""

from collections.abc import Mapping
from typing import Any

import orjson

from proctor.server.engines.grammars.complexity import check_schema
from proctor.server.engines.grammars.xgrammar_schemas import (
    MAX_BYTES,
    Inexpressible,
    Schema,
    expressible,
    without_annotations,
)
from proctor.server.errors import UnsupportedRequest

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}


def arguments_schema(parameters: Mapping[str, Any] | None, field: str) -> Mapping[str, Any]:
    """Return a schema that a grammar can hold arguments to, no wider than a function's own.

    Args:
        parameters: the function's own schema.
        field: where the request has it.

    Raises:
        UnsupportedRequest: if no grammar can, or if it allows for what is no object.
    """
    if not parameters:
        return NO_ARGUMENTS
    check_schema(parameters, field)
    try:
        _check_length(without_annotations(dict(parameters)))
        schema = expressible(dict(parameters))
        found: dict[str, Any] = _Objects(schema).alone(schema)
        _check_length(found)
        return found
    except Inexpressible as error:
        raise UnsupportedRequest(
            field, f"'{field}' cannot bind a call's arguments: {error}"
        ) from None
    except RecursionError:
        raise UnsupportedRequest(field, f"'{field}' has references nested too deeply") from None
    except (AttributeError, TypeError, ValueError, KeyError):
        raise UnsupportedRequest(field, f"'{field}' is no JSON schema") from None


def _check_length(schema: Schema) -> None:
    if len(orjson.dumps(schema)) > MAX_BYTES:
        raise Inexpressible(f"it is longer than {MAX_BYTES} bytes, descriptions aside")


class _Objects:
    """Sees that all that a schema allows for is an object, each reference looked at once."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._seen: dict[str, bool] = {}

    def alone(self, schema: Schema) -> Schema:
        """The schema, if all that it allows for is an object.

        Raises:
            Inexpressible: if it is not.
        """
        if isinstance(schema, dict):
            kind = schema.get("type")
            if kind == "object" or (isinstance(kind, list) and "object" in kind):
                return {**schema, "type": "object"}
            if "$ref" in schema and self._leads_to_objects(schema["$ref"]):
                return schema
            if isinstance(branches := schema.get("anyOf"), list):
                return {**schema, "anyOf": [self.alone(each) for each in branches]}
            asserted = {"enum", "const", "$ref", "items", "prefixItems"} & schema.keys()
            if kind is None and not asserted:
                return {**schema, "type": "object"}
        raise Inexpressible("it should describe an object")

    def _leads_to_objects(self, reference: str) -> bool:
        if reference not in self._seen:
            self._seen[reference] = False  # until it is known: it may lead to itself
            target = self._resolved(reference)
            self._seen[reference] = self.alone(target) == target
        return self._seen[reference]

    def _resolved(self, reference: str) -> Schema:
        found: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, dict) else None
        if found is None:
            raise Inexpressible(f"there is nothing at its '$ref' to '{reference}'")
        return found
