"""The schema that the arguments of a tool call are bound to.

A grammar is made of it by xgrammar, which passes over what it does not know. What it would
pass over is said here in other words, or refused.
"""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from server.engines.base import Unserved

Schema = Any
"""A JSON schema: an object, or true or false."""

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}

MAPS = ("properties", "patternProperties", "$defs", "definitions")
LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
SINGLE = ("items", "additionalProperties", "propertyNames")

ANNOTATIONS = frozenset(
    (
        "$comment",
        "$id",
        "$schema",
        "default",
        "deprecated",
        "description",
        "example",
        "examples",
        "format",
        "nullable",
        "readOnly",
        "title",
        "writeOnly",
    )
)
"""Keywords that say nothing of what is valid; `format` is one, by JSON Schema's own rule."""

DEFINITIONS = frozenset(["$defs", "definitions"])
ALTERNATIVES = ("anyOf", "oneOf")

UNENFORCED = frozenset(
    (
        "$dynamicRef",
        "additionalItems",
        "contains",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "if",
        "maxContains",
        "minContains",
        "not",
        "unevaluatedItems",
    )
)
"""Keywords that xgrammar passes over."""

OF_NUMBERS = frozenset(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
OF_STRINGS = frozenset(["minLength", "maxLength", "pattern"])


MAX_BYTES = 65536
"""A grammar is made of it, which takes time by more than its length."""


class Inexpressible(ValueError):
    """A schema that no grammar holds an answer to; the text says why."""


def arguments_schema(parameters: Mapping[str, Any] | None, field: str) -> Mapping[str, Any]:
    """Return a schema that a grammar can hold arguments to, no wider than a function's own.

    Args:
        parameters: the function's own schema.
        field: where the request has it.

    Raises:
        Unserved: if no grammar can, or if it allows for what is no object.
    """
    if not parameters:
        return NO_ARGUMENTS
    try:
        schema = _expressible(dict(parameters))
        found: dict[str, Any] = _objects_alone(schema, schema, set())
        if len(orjson.dumps(found)) > MAX_BYTES:
            raise Inexpressible(f"it is longer than {MAX_BYTES} bytes, descriptions aside")
        return found
    except Inexpressible as error:
        raise Unserved(field, f"'{field}' cannot bind a call's arguments: {error}") from None
    except RecursionError:
        raise Unserved(field, f"'{field}' is nested too deeply") from None
    except (AttributeError, TypeError, ValueError, KeyError):
        raise Unserved(field, f"'{field}' is no JSON schema") from None


def _expressible(schema: Schema) -> Schema:
    if not isinstance(schema, dict):
        return schema
    found = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
    for key in sorted(UNENFORCED & found.keys()):
        raise Inexpressible(f"'{key}' cannot be enforced")
    found = _merged_all(found)
    found = _children(found, _expressible)
    _check_node(found)
    return _with_required(_distributed(found))


def _children(schema: dict[str, Any], change: Callable[[Schema], Schema]) -> dict[str, Any]:
    changed = dict(schema)
    for key in MAPS:
        if isinstance(schema.get(key), dict):
            changed[key] = {name: change(part) for name, part in schema[key].items()}
    for key in LISTS:
        if isinstance(schema.get(key), list):
            changed[key] = [change(part) for part in schema[key]]
    for key in SINGLE:
        if key in schema:
            changed[key] = change(schema[key])
    return changed


def _check_node(schema: dict[str, Any]) -> None:
    """See that xgrammar takes every keyword of one schema into account.

    Raises:
        Inexpressible: if it does not.
    """
    reference = schema.get("$ref")
    if reference is not None and not str(reference).startswith("#"):
        raise Inexpressible(f"the '$ref' to '{reference}' leads out of it")
    if schema.get("uniqueItems"):
        raise Inexpressible("'uniqueItems' cannot be enforced")
    if "multipleOf" in schema and (schema.get("type") != "integer" or OF_NUMBERS & schema.keys()):
        raise Inexpressible("'multipleOf' can be enforced of integers without bounds alone")
    if "pattern" in schema and {"minLength", "maxLength"} & schema.keys():
        raise Inexpressible("'pattern' cannot be enforced beside a length")
    names = {"propertyNames", "patternProperties"} & schema.keys()
    if names and len({*names, *{"properties", "required"} & schema.keys()}) > 1:
        raise Inexpressible(f"'{min(names)}' cannot be enforced beside other keywords")
    if len(schema.get("patternProperties") or ()) > 1:
        raise Inexpressible("'patternProperties' can have one pattern")
    fixed = {"type", "enum", "const", "$ref", *LISTS} & schema.keys()
    loose = (OF_NUMBERS | OF_STRINGS) & schema.keys()
    if loose and not fixed:
        raise Inexpressible(f"'{min(loose)}' needs a 'type' beside it")
    for key in ("$ref", "enum", "const"):
        if key in schema and (others := _asserted(schema) - {key, "type"}):
            raise Inexpressible(f"'{key}' cannot be enforced beside '{min(others)}'")
    if "$ref" in schema and "type" in schema:
        raise Inexpressible("'$ref' cannot be enforced beside 'type'")


def _asserted(schema: dict[str, Any]) -> set[str]:
    return {*schema} - DEFINITIONS


def _merged_all(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, with what is in `allOf` beside the rest."""
    parts = schema.get("allOf")
    if not isinstance(parts, list):
        return schema
    whole = {key: value for key, value in schema.items() if key != "allOf"}
    for part in parts:
        if not isinstance(part, dict):
            raise Inexpressible("'allOf' holds what is no object")
        plain = {key: value for key, value in part.items() if key not in ANNOTATIONS}
        whole = _merged(whole, plain)
    return whole


def _distributed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, with what stands beside `anyOf` inside each of its branches.

    xgrammar reads `oneOf` as `anyOf`, and nothing beside them.
    """
    given = [key for key in ALTERNATIVES if key in schema]
    if not given:
        return _with_narrowed_enum(schema)
    if len(given) > 1:
        raise Inexpressible("'anyOf' and 'oneOf' cannot be enforced beside each other")
    kept = {key: value for key, value in schema.items() if key in DEFINITIONS}
    beside = {key: schema[key] for key in schema if key not in (*DEFINITIONS, *given)}
    branches = schema[given[0]]
    if not isinstance(branches, list):
        return schema
    if beside:
        branches = [_branch(beside, branch) for branch in branches]
    return {**kept, "anyOf": branches}


def _branch(beside: dict[str, Any], branch: Schema) -> dict[str, Any]:
    if not isinstance(branch, dict):
        raise Inexpressible("'anyOf' holds what is no object")
    merged = _merged(beside, branch)
    _check_node(merged)
    return _with_required(_distributed(merged))


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Both at once.

    Raises:
        Inexpressible: if they speak of the same in different ways.
    """
    merged = {**one, **other}
    for key in one.keys() & other.keys():
        if key in MAPS:
            merged[key] = _merged(one[key], other[key])
        elif key == "required":
            merged[key] = [*dict.fromkeys([*one[key], *other[key]])]
        elif one[key] != other[key]:
            raise Inexpressible(f"'{key}' is said twice of the same value")
    return merged


def _with_narrowed_enum(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, without the values of its `enum` that its `type` does not allow."""
    kind, values = schema.get("type"), schema.get("enum", [schema.get("const")])
    if kind is None or not {"enum", "const"} & schema.keys() or not isinstance(values, list):
        return schema
    kinds = [kind] if isinstance(kind, str) else kind
    left = [value for value in values if any(_is_of(value, each) for each in kinds)]
    if not left:
        raise Inexpressible("no value of its 'enum' is of its 'type'")
    return {"enum": left, **{key: schema[key] for key in DEFINITIONS & schema.keys()}}


def _is_of(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    if isinstance(value, float):
        return kind == "number" or (kind == "integer" and value.is_integer())
    types = {"integer": int, "number": int, "string": str, "object": dict, "array": list}
    return isinstance(value, types.get(kind, ()))


def _with_required(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, with a property for each name that is required: xgrammar knows no others."""
    required, properties = schema.get("required"), schema.get("properties") or {}
    if not isinstance(required, list) or not isinstance(properties, dict):
        return schema
    rest = schema.get("additionalProperties", {})
    missing = [name for name in required if name not in properties]
    if missing and rest is False:
        raise Inexpressible(f"it requires '{missing[0]}', and allows for no such property")
    return {**schema, "properties": {**properties, **dict.fromkeys(missing, rest)}}


def _objects_alone(schema: Schema, root: dict[str, Any], seen: set[str]) -> Schema:
    """The schema, if all that it allows for is an object.

    Raises:
        Inexpressible: if it is not.
    """
    if isinstance(schema, dict):
        kind = schema.get("type")
        if kind == "object" or (isinstance(kind, list) and "object" in kind):
            return {**schema, "type": "object"}
        if "$ref" in schema and schema["$ref"] not in seen:
            target = _resolved(schema["$ref"], root)
            if _objects_alone(target, root, {*seen, schema["$ref"]}) == target:
                return schema
        if isinstance(branches := schema.get("anyOf"), list):
            return {**schema, "anyOf": [_objects_alone(each, root, seen) for each in branches]}
        if kind is None and not {"enum", "const", "$ref", "items", "prefixItems"} & schema.keys():
            return {**schema, "type": "object"}
    raise Inexpressible("it should describe an object")


def _resolved(reference: str, root: dict[str, Any]) -> Schema:
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, dict) else None
    if found is None:
        raise Inexpressible(f"there is nothing at its '$ref' to '{reference}'")
    return found
