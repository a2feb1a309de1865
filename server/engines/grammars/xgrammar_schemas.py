"""JSON schemas as xgrammar needs them: it passes over what it does not know.

What it would pass over is said in other words, or found out.
"""

import re
from collections.abc import Callable
from typing import Any

import orjson

Schema = Any
"""A JSON schema: an object, or true or false."""

MAX_BYTES = 65536
"""A grammar is made of it, which takes time by more than its length."""

MAX_COPIED = 2**20
"""Bytes, and members, that may be copied to say a schema in other words. Each branch of `anyOf`
takes what stands beside it, so that what comes out can be as long as the product of the two."""

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
"""What xgrammar counts slowly, 1,000 characters in 12 s with a vocabulary of 150,000 tokens, and
lets write control characters into a string as they are."""


TYPES = frozenset(("array", "boolean", "integer", "null", "number", "object", "string"))

MAX_ITEMS = 64
"""Most items that xgrammar counts quickly."""

INEXACT = re.compile(r'\(\?[=!<]|["\x00-\x1f]|\\[\\cfnrtuvx0]')
"""What xgrammar makes something else of in a pattern: it passes over what looks ahead, and writes
quotes, backslashes and control characters into a string as they are."""


class Inexpressible(ValueError):
    """A schema that xgrammar does not hold an answer to; the text says why."""


def expressible(schema: Schema) -> Schema:
    """Return a schema that xgrammar holds an answer to, and that is no wider than this one.

    Raises:
        Inexpressible: if there is none.
        RecursionError: if it is nested too deeply.
    """
    return Rewriting().expressible(schema)


def check_heeded(schema: Schema) -> None:
    """See that xgrammar holds an answer to all that a schema says, as it stands.

    Raises:
        Inexpressible: if it does not.
    """
    if expressible(schema) != without_annotations(schema):
        raise Inexpressible(
            "what its 'anyOf', 'oneOf', 'allOf' or 'required' says beside the rest "
            "cannot be enforced"
        )


def suits(schema: Schema) -> bool:
    """Whether xgrammar is quick with a schema and writes its strings right, as its text tells."""
    if isinstance(schema, list):
        return all(map(suits, schema))
    if not isinstance(schema, dict):
        return True
    if any(isinstance(schema.get(name), int | str) for name in OF_STRINGS):
        return False
    counts = (schema.get(name) for name in ("minItems", "maxItems"))
    if any(isinstance(count, int) and count > MAX_ITEMS for count in counts):
        return False
    return not schema.get("patternProperties") and all(map(suits, schema.values()))


class Rewriting:
    """Says a schema in other words, as long as it does not become too long for that."""

    def __init__(self) -> None:
        self._left = MAX_COPIED

    def expressible(self, schema: Schema) -> Schema:
        if not isinstance(schema, dict):
            return schema
        found = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
        for key in sorted(UNENFORCED & found.keys()):
            raise Inexpressible(f"'{key}' cannot be enforced")
        found = self._merged_all(found)
        found = _children(found, self.expressible)
        _check_node(found)
        return self._with_required(self._distributed(found))

    def _merged_all(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema, with what is in `allOf` beside the rest."""
        parts = schema.get("allOf")
        if not isinstance(parts, list):
            return schema
        whole = {key: value for key, value in schema.items() if key != "allOf"}
        for part in parts:
            if not isinstance(part, dict):
                raise Inexpressible("'allOf' holds what is no object")
            plain = {key: value for key, value in part.items() if key not in ANNOTATIONS}
            whole = self._merged(whole, self._merged_all(plain))
        return whole

    def _distributed(self, schema: dict[str, Any]) -> dict[str, Any]:
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
            self._copy(len(orjson.dumps(beside)) * len(branches))
            branches = [self._branch(beside, branch) for branch in branches]
        return {**kept, "anyOf": branches}

    def _branch(self, beside: dict[str, Any], branch: Schema) -> dict[str, Any]:
        if not isinstance(branch, dict):
            raise Inexpressible("'anyOf' holds what is no object")
        merged = self._merged(beside, branch)
        _check_node(merged)
        return self._with_required(self._distributed(merged))

    def _merged(self, one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        """Both at once.

        Raises:
            Inexpressible: if they speak of the same in different ways.
        """
        self._copy(len(one) + len(other))
        merged = {**one, **other}
        for key in one.keys() & other.keys():
            if key in MAPS:
                merged[key] = self._merged(one[key], other[key])
            elif key == "required":
                self._copy(len(one[key]) + len(other[key]))
                merged[key] = [*dict.fromkeys([*one[key], *other[key]])]
            elif one[key] != other[key]:
                raise Inexpressible(f"'{key}' is said twice of the same value")
        return merged

    def _with_required(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema, with a property for each name that is required: xgrammar knows no others."""
        required, properties = schema.get("required"), schema.get("properties") or {}
        if not isinstance(required, list) or not isinstance(properties, dict):
            return schema
        self._copy(len(required) + len(properties))
        missing = [name for name in required if name not in properties]
        if not missing:
            return schema
        rest = schema.get("additionalProperties", {})
        if rest is False:
            raise Inexpressible(f"it requires '{missing[0]}', and allows for no such property")
        return {**schema, "properties": {**properties, **dict.fromkeys(missing, rest)}}

    def _copy(self, size: int) -> None:
        """Account for what is copied, or gone through.

        Raises:
            Inexpressible: if it has become too much.
        """
        self._left -= size
        if self._left < 0:
            raise Inexpressible("it is too long with what stands beside 'anyOf' in each branch")


def without_annotations(schema: Schema) -> Schema:
    """Return a schema without the keywords that say nothing of what is valid."""
    if not isinstance(schema, dict):
        return schema
    plain = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
    return _children(plain, without_annotations)


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
    for pattern in (schema.get("pattern"), *(schema.get("patternProperties") or ())):
        if isinstance(pattern, str) and INEXACT.search(pattern):
            raise Inexpressible(f"the pattern '{pattern}' cannot be enforced")
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


def _with_narrowed_enum(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, without the values of its `enum` that its `type` does not allow."""
    kind, values = schema.get("type"), schema.get("enum", [schema.get("const")])
    if kind is None or not {"enum", "const"} & schema.keys() or not isinstance(values, list):
        return schema
    kinds = TYPES & ({kind} if isinstance(kind, str) else {*kind})
    left = [value for value in values if any(_is_of(value, each) for each in kinds)]
    if not left:
        raise Inexpressible("no value of its 'enum' is of its 'type'")
    if len(left) == len(values):
        return schema
    return {"enum": left, **{key: schema[key] for key in DEFINITIONS & schema.keys()}}


def _is_of(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    if isinstance(value, float):
        return kind == "number" or (kind == "integer" and value.is_integer())
    types = {"integer": int, "number": int, "string": str, "object": dict, "array": list}
    return isinstance(value, types.get(kind, ()))
