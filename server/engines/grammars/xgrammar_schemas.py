"""JSON schemas for xgrammar, which ignores keywords that it does not support.

A schema with such keywords is rewritten to an equivalent one, or rejected.
"""

import re
from collections.abc import Callable
from typing import Any

import orjson

Schema = Any
"""A JSON schema: an object, or true or false."""

MAX_BYTES = 65536
"""Maximum length of a schema: compilation time grows faster than linearly."""

MAX_COPIED = 2**20
"""Maximum number of bytes and members copied to rewrite a schema. The keywords next to `anyOf` are
copied into each of its branches, so that the result can be as long as the product of the two."""

SCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions")
SCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
SUBSCHEMAS = ("items", "additionalProperties", "propertyNames")
SIBLINGS = {
    "additionalProperties": ("properties", "patternProperties"),
    "items": ("prefixItems",),
}
"""Keywords that apply to everything that these siblings do not name."""

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
"""Keywords that do not affect validity; `format` is one by default in JSON Schema."""

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
"""Keywords that xgrammar ignores."""

NUMBER_BOUNDS = frozenset(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
STRING_BOUNDS = frozenset(["minLength", "maxLength", "pattern"])
"""Keywords that xgrammar enforces slowly (1,000 characters take 12 s with a vocabulary of 150,000
tokens) and incorrectly: it allows unescaped control characters in such strings."""


TYPES = frozenset(("array", "boolean", "integer", "null", "number", "object", "string"))

MAX_ITEMS = 64
"""Maximum number of items that xgrammar counts fast."""

INEXACT = re.compile(r'\(\?[=!<]|["\x00-\x1f]|\\[\\cfnrtuvx0]')
"""Parts of patterns that xgrammar misinterprets: it ignores lookaround, and does not escape quotes,
backslashes and control characters in the string."""


class UnsupportedSchema(ValueError):
    """A schema that xgrammar cannot enforce; the message says why."""


def rewrite(schema: Schema) -> Schema:
    """Return a schema that xgrammar enforces, and that allows nothing which `schema` does not.

    Raises:
        UnsupportedSchema: if there is none.
        RecursionError: if the schema is nested too deeply.
    """
    return SchemaRewriter().rewrite(schema)


def check_enforced(schema: Schema) -> None:
    """Check that xgrammar enforces all of a schema without a rewrite.

    Raises:
        UnsupportedSchema: if it does not.
    """
    if rewrite(schema) != without_annotations(schema):
        raise UnsupportedSchema(
            "its 'anyOf', 'oneOf', 'allOf' or 'required' cannot be enforced together with the "
            "other keywords"
        )


def is_efficient(schema: Schema) -> bool:
    """Return whether xgrammar compiles a schema fast and escapes its strings correctly."""
    if isinstance(schema, list):
        return all(map(is_efficient, schema))
    if not isinstance(schema, dict):
        return True
    if any(isinstance(schema.get(name), int | str) for name in STRING_BOUNDS):
        return False
    counts = (schema.get(name) for name in ("minItems", "maxItems"))
    if any(isinstance(count, int) and count > MAX_ITEMS for count in counts):
        return False
    return not schema.get("patternProperties") and all(map(is_efficient, schema.values()))


class SchemaRewriter:
    """Rewrites a schema, within a limit on the number of copied members."""

    def __init__(self) -> None:
        self._remaining = MAX_COPIED

    def rewrite(self, schema: Schema) -> Schema:
        if not isinstance(schema, dict):
            return schema
        node = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
        for key in sorted(UNENFORCED & node.keys()):
            raise UnsupportedSchema(f"'{key}' cannot be enforced")
        node = self._merge_all_of(node)
        node = _map_subschemas(node, self.rewrite)
        _check_node(node)
        return self._add_required_properties(self._distribute(node))

    def _merge_all_of(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Merge the parts of `allOf` with the other keywords."""
        parts = schema.get("allOf")
        if not isinstance(parts, list):
            return schema
        merged = {key: value for key, value in schema.items() if key != "allOf"}
        for part in parts:
            if not isinstance(part, dict):
                raise UnsupportedSchema("every part of 'allOf' must be an object")
            plain = {key: value for key, value in part.items() if key not in ANNOTATIONS}
            merged = self._merge(merged, self._merge_all_of(plain))
        return merged

    def _distribute(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Move the keywords next to `anyOf` or `oneOf` into each of its branches.

        xgrammar treats `oneOf` as `anyOf` and ignores the keywords next to either.
        """
        alternatives = [key for key in ALTERNATIVES if key in schema]
        if not alternatives:
            return _narrow_enum(schema)
        if len(alternatives) > 1:
            raise UnsupportedSchema("'anyOf' and 'oneOf' cannot be enforced together")
        definitions = {key: value for key, value in schema.items() if key in DEFINITIONS}
        siblings = {key: schema[key] for key in schema if key not in (*DEFINITIONS, *alternatives)}
        branches = schema[alternatives[0]]
        if not isinstance(branches, list):
            return schema
        if siblings:
            self._count_copied(len(orjson.dumps(siblings)) * len(branches))
            branches = [self._merge_branch(siblings, branch) for branch in branches]
        return {**definitions, "anyOf": branches}

    def _merge_branch(self, siblings: dict[str, Any], branch: Schema) -> dict[str, Any]:
        if not isinstance(branch, dict):
            raise UnsupportedSchema("every branch of 'anyOf' must be an object")
        merged = self._merge(siblings, branch)
        _check_node(merged)
        return self._add_required_properties(self._distribute(merged))

    def _merge(self, one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        """Return a schema that has the keywords of both.

        Raises:
            UnsupportedSchema: if they have different values for a keyword.
        """
        self._count_copied(len(one) + len(other))
        _check_scope(one, other)
        _check_scope(other, one)
        merged = {**one, **other}
        for key in one.keys() & other.keys():
            if key in SCHEMA_MAPS:
                merged[key] = self._union(one[key], other[key])
            elif key == "required":
                self._count_copied(len(one[key]) + len(other[key]))
                merged[key] = [*dict.fromkeys([*one[key], *other[key]])]
            elif one[key] != other[key]:
                raise UnsupportedSchema(f"'{key}' has two different values for the same schema")
        return merged

    def _union(self, one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        """Unite two maps of schemas by name.

        Raises:
            UnsupportedSchema: if they have different schemas of one name.
        """
        self._count_copied(len(one) + len(other))
        for name in one.keys() & other.keys():
            if one[name] != other[name]:
                raise UnsupportedSchema(f"'{name}' is set twice for the same value")
        return {**one, **other}

    def _add_required_properties(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Add a property for each required name; xgrammar ignores names without a property."""
        required, properties = schema.get("required"), schema.get("properties") or {}
        if not isinstance(required, list) or not isinstance(properties, dict):
            return schema
        self._count_copied(len(required) + len(properties))
        missing = [name for name in required if name not in properties]
        if not missing:
            return schema
        additional = schema.get("additionalProperties", {})
        if additional is False:
            raise UnsupportedSchema(f"it requires the property '{missing[0]}', but forbids it")
        return {**schema, "properties": {**properties, **dict.fromkeys(missing, additional)}}

    def _count_copied(self, size: int) -> None:
        """Count bytes or members that are copied or visited.

        Raises:
            UnsupportedSchema: if there are more than `MAX_COPIED`.
        """
        self._remaining -= size
        if self._remaining < 0:
            raise UnsupportedSchema(
                "it is too long once the keywords next to 'anyOf' are copied to each branch"
            )


def without_annotations(schema: Schema) -> Schema:
    """Return a schema without the keywords that do not affect validity."""
    if not isinstance(schema, dict):
        return schema
    plain = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
    return _map_subschemas(plain, without_annotations)


def _map_subschemas(schema: dict[str, Any], function: Callable[[Schema], Schema]) -> dict[str, Any]:
    mapped = dict(schema)
    for key in SCHEMA_MAPS:
        if isinstance(schema.get(key), dict):
            mapped[key] = {name: function(part) for name, part in schema[key].items()}
    for key in SCHEMA_LISTS:
        if isinstance(schema.get(key), list):
            mapped[key] = [function(part) for part in schema[key]]
    for key in SUBSCHEMAS:
        if key in schema:
            mapped[key] = function(schema[key])
    return mapped


def _check_scope(part: dict[str, Any], other: dict[str, Any]) -> None:
    """Check that merging does not change what a keyword such as `additionalProperties` covers.

    Such a keyword applies to what its siblings do not name; the other part's are no siblings.

    Raises:
        UnsupportedSchema: if the other part names something that it applies to.
    """
    for keyword, naming in SIBLINGS.items():
        if part.get(keyword, True) in (True, {}):
            continue
        for key in naming:
            named, beside = other.get(key) or (), part.get(key) or ()
            if any(each not in beside for each in named):
                raise UnsupportedSchema(
                    f"'{keyword}' cannot be enforced next to '{key}' of another part"
                )


def _check_node(schema: dict[str, Any]) -> None:
    """Check that xgrammar enforces every keyword of one schema, without its subschemas.

    Raises:
        UnsupportedSchema: if it does not.
    """
    reference = schema.get("$ref")
    if reference is not None and not str(reference).startswith("#"):
        raise UnsupportedSchema(f"'$ref' must be local, not '{reference}'")
    if schema.get("uniqueItems"):
        raise UnsupportedSchema("'uniqueItems' cannot be enforced")
    if "multipleOf" in schema and (
        schema.get("type") != "integer" or NUMBER_BOUNDS & schema.keys()
    ):
        raise UnsupportedSchema("'multipleOf' can only be enforced for integers without bounds")
    if "pattern" in schema and {"minLength", "maxLength"} & schema.keys():
        raise UnsupportedSchema("'pattern' cannot be enforced together with a length")
    for pattern in (schema.get("pattern"), *(schema.get("patternProperties") or ())):
        if isinstance(pattern, str) and INEXACT.search(pattern):
            raise UnsupportedSchema(f"the pattern '{pattern}' cannot be enforced")
    names = {"propertyNames", "patternProperties"} & schema.keys()
    if names and len({*names, *{"properties", "required"} & schema.keys()}) > 1:
        raise UnsupportedSchema(f"'{min(names)}' cannot be enforced together with other keywords")
    if len(schema.get("patternProperties") or ()) > 1:
        raise UnsupportedSchema("'patternProperties' must not have more than one pattern")
    typed = {"type", "enum", "const", "$ref", *SCHEMA_LISTS} & schema.keys()
    bounds = (NUMBER_BOUNDS | STRING_BOUNDS) & schema.keys()
    if bounds and not typed:
        raise UnsupportedSchema(f"'{min(bounds)}' requires a 'type'")
    for key in ("$ref", "enum", "const"):
        if key in schema and (others := _asserted(schema) - {key, "type"}):
            raise UnsupportedSchema(f"'{key}' cannot be enforced together with '{min(others)}'")
    if "$ref" in schema and "type" in schema:
        raise UnsupportedSchema("'$ref' cannot be enforced together with 'type'")


def _asserted(schema: dict[str, Any]) -> set[str]:
    return {*schema} - DEFINITIONS


def _narrow_enum(schema: dict[str, Any]) -> dict[str, Any]:
    """Remove the values of `enum` that `type` does not allow."""
    kind, values = schema.get("type"), schema.get("enum", [schema.get("const")])
    if kind is None or not {"enum", "const"} & schema.keys() or not isinstance(values, list):
        return schema
    kinds = TYPES & ({kind} if isinstance(kind, str) else {*kind})
    allowed = [value for value in values if any(_has_type(value, each) for each in kinds)]
    if not allowed:
        raise UnsupportedSchema("no value of its 'enum' has its 'type'")
    if len(allowed) == len(values):
        return schema
    return {"enum": allowed, **{key: schema[key] for key in DEFINITIONS & schema.keys()}}


def _has_type(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    if isinstance(value, float):
        return kind == "number" or (kind == "integer" and value.is_integer())
    types = {"integer": int, "number": int, "string": str, "object": dict, "array": list}
    return isinstance(value, types.get(kind, ()))
