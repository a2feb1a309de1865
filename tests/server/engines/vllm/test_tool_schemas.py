"""Whatever a grammar lets a model write as a call's arguments is valid by the function's schema."""

import json
from random import Random
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proctor.server.errors import UnsupportedRequest

xgrammar = pytest.importorskip("xgrammar", reason="the CPU engine, which brings it, is missing")

from proctor.server.engines.vllm.tool_schemas import arguments_schema  # noqa: E402

INTEGER = {"type": "integer", "minimum": 0, "maximum": 9}
WORD = {"type": "string", "enum": ["x", "y"]}
A: dict[str, Any] = {"type": "object", "properties": {"a": INTEGER}, "required": ["a"]}
PRINTABLE = [bytes([byte]) for byte in range(128)]
LONGEST = 2000

SERVED: list[dict[str, Any] | None] = [
    None,
    {},
    A,
    {"type": "object"},
    {"properties": {"a": INTEGER}, "required": ["a"]},
    {"$ref": "#/$defs/A", "$defs": {"A": A}},
    {"type": "object", "properties": {"x": {"$ref": "#/$defs/A"}}, "$defs": {"A": A}},
    {"type": "object", "properties": {"x": {"$ref": "#/definitions/A"}}, "definitions": {"A": A}},
    {"type": "object", "properties": {"next": {"$ref": "#"}}},
    {"type": ["object", "null"], **{k: A[k] for k in ("properties", "required")}},
    {"anyOf": [A, {"type": "object", "properties": {"b": WORD}, "required": ["b"]}]},
    {**A, "anyOf": [{"required": ["b"]}, {"required": ["c"]}]},
    {**A, "allOf": [{"properties": {"b": WORD}, "required": ["b"]}]},
    {"allOf": [A]},
    {"allOf": [{"allOf": [A, {"required": ["b"]}]}]},
    {"type": "object", "required": ["z"]},
    {"type": "object", "properties": {"description": WORD, "format": WORD}, "required": ["format"]},
    {"type": "object", "properties": {"a": {"type": "integer", "enum": [1, "x"]}}},
    {"type": "object", "properties": {"a": {"type": "string", "format": "binary"}}},
    {"type": "object", "additionalProperties": WORD, "required": ["k"]},
]

REFUSED: list[dict[str, Any]] = [
    {"type": "integer"},
    {"enum": [1, 2]},
    {"anyOf": [A, {"type": "integer"}]},
    {"$ref": "#/$defs/A", "$defs": {"A": {"type": "string"}}},
    {"$ref": "#/$defs/missing"},
    {"type": "object", "properties": {"a": {"$ref": "https://example.org/schema"}}},
    {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}},
    {"type": "object", "properties": {"a": {"not": {"type": "integer"}}}},
    {**A, "if": {"required": ["b"]}, "then": {"required": ["c"]}},
    {"type": "object", "properties": {"a": {"type": "string", "pattern": "^a+$", "maxLength": 3}}},
    {"type": "object", "properties": {"a": {"type": "number", "multipleOf": 0.5}}},
    {"type": "object", "properties": {"a": {"minimum": 3}}},
    {"type": "object", "required": ["z"], "additionalProperties": False},
    {"type": "object", "additionalProperties": False, "anyOf": [{"required": ["z"]}]},
    {"additionalProperties": WORD, "allOf": [{"properties": {"z": {}}}], "type": "object"},
    {
        "type": "object",
        "additionalProperties": False,
        "anyOf": [{"patternProperties": {"^z": INTEGER}}],
    },
    {
        "type": "object",
        "properties": {"a": {"type": "array", "items": False, "allOf": [{"prefixItems": [WORD]}]}},
    },
    {
        "type": "object",
        "properties": {"properties": {"type": "object"}},
        "allOf": [{"properties": {"properties": {"required": ["z"]}}}],
    },
    {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(?!b)"}}},
    {"type": "object", "properties": {"a": {"type": "string", "pattern": '^"'}}},
    {"type": "object", "properties": {"a": {"type": "string", "pattern": r"^\\\\"}}},
    {"type": "object", "properties": {"a": {"type": "string", "pattern": r"^\n"}}},
    {"type": "object", "patternProperties": {"^(?=b)": {"type": "integer"}}},
    {"type": "object", "properties": {"a": {"type": "nothing", "enum": [1]}}},
]


def written(schema: Any, rng: Random) -> list[str]:
    """Some of what a model that writes at random may write."""
    info = xgrammar.TokenizerInfo([*PRINTABLE, b"<end>"], stop_token_ids=[len(PRINTABLE)])
    compiler = xgrammar.GrammarCompiler(info, max_threads=1)
    compiled = compiler.compile_json_schema(json.dumps(schema), any_whitespace=False)
    bitmask = xgrammar.allocate_token_bitmask(1, info.vocab_size)
    texts = []
    for _ in range(5):
        matcher = xgrammar.GrammarMatcher(compiled)
        text = ""
        while len(text) < LONGEST:
            matcher.fill_next_token_bitmask(bitmask)
            words = bitmask[0].tolist()
            allowed = [t for t in range(info.vocab_size) if words[t // 32] >> (t % 32) & 1]
            closing = [t for t in allowed if t == len(PRINTABLE) or chr(t) in '"}]']
            token = rng.choice(closing if closing and rng.random() < 0.4 else allowed)
            if token == len(PRINTABLE):
                texts.append(text)
                break
            assert matcher.accept_token(token)
            text += chr(token)
    return texts


@pytest.mark.parametrize("parameters", SERVED)
def test_generated_arguments_match_the_schema(parameters: dict[str, Any] | None) -> None:
    texts = written(arguments_schema(parameters, "parameters"), Random(1))

    assert texts
    for text in texts:
        arguments = json.loads(text)
        assert isinstance(arguments, dict)
        jsonschema.validate(arguments, parameters or {})


@pytest.mark.parametrize("parameters", REFUSED)
def test_schemas_that_cannot_be_enforced_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedRequest) as caught:
        arguments_schema(parameters, "tools[0].function.parameters")

    assert caught.value.param == "tools[0].function.parameters"


def test_deeply_nested_schemas_are_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(10_000):
        deep = {"items": deep}

    with pytest.raises(UnsupportedRequest, match="deep"):
        arguments_schema({"type": "object", "properties": {"a": deep}}, "parameters")


def alternatives(levels: int, last: Any) -> dict[str, Any]:
    """Definitions that each name the next one twice."""
    names = [f"#/$defs/d{level}" for level in range(levels + 1)]
    pairs = {f"d{level}": {"anyOf": [{"$ref": names[level + 1]}] * 2} for level in range(levels)}
    return {"$ref": names[0], "$defs": {**pairs, f"d{levels}": last}}


def test_each_reference_is_followed_once() -> None:
    assert arguments_schema(alternatives(60, A), "parameters")
    with pytest.raises(UnsupportedRequest, match="object"):
        arguments_schema(alternatives(60, {"type": "integer"}), "parameters")
    with pytest.raises(UnsupportedRequest, match="object"):
        arguments_schema({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "parameters")


def test_a_long_chain_of_references_is_refused() -> None:
    way = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(1500)}
    with pytest.raises(UnsupportedRequest, match="nested"):
        arguments_schema({"$ref": "#/$defs/d0", "$defs": {**way, "d1500": A}}, "parameters")


BESIDE: list[dict[str, Any]] = [
    {
        "properties": {f"p{i}": {} for i in range(2000)},
        "anyOf": [{"required": [f"p{i}"]} for i in range(1000)],
    },
    {"properties": {"a": {"enum": ["x" * 20_000]}}, "anyOf": [{"minProperties": 1}] * 1000},
    {"required": [f"p{i}" for i in range(2000)], "anyOf": [{"required": ["a"]}] * 1000},
    {"allOf": [{f"k{i}": 1} for i in range(4000)]},
]


@pytest.mark.parametrize("schema", BESIDE)
def test_merging_siblings_into_branches_is_bounded(schema: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedRequest, match="too long"):
        arguments_schema({"type": "object", **schema}, "parameters")


def test_long_schemas_are_refused_before_they_are_rewritten() -> None:
    with pytest.raises(UnsupportedRequest, match="longer than 65536 bytes"):
        arguments_schema({"properties": {f"p{i}": {} for i in range(9000)}}, "parameters")
    many = {f"p{i}": {"description": "x" * 99} for i in range(900)}
    assert arguments_schema({"properties": many}, "parameters")


names = st.sampled_from(["a", "b", "enum"])
leaves = st.sampled_from(
    [
        INTEGER,
        WORD,
        {"type": "boolean"},
        {"type": "null"},
        {"const": 1},
        {"type": "integer", "const": 1},
        {"type": ["integer", "null"], "maximum": 3},
        {"enum": [1, "x", None, {"a": 1}]},
        {"type": "integer", "enum": [1, "x"]},
        {"type": "string", "maxLength": 3},
        {"type": "integer", "multipleOf": 5},
        {"$ref": "#/$defs/D"},
        {"minimum": 3},
        {"required": ["b"]},
        {"title": "anything"},
        True,
    ]
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    objects = st.fixed_dictionaries(
        {"type": st.just("object")},
        optional={
            "properties": st.dictionaries(names, inner, max_size=2),
            "required": st.lists(names, max_size=2, unique=True),
            "additionalProperties": inner | st.just(False),
            "description": st.just("about it"),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "minProperties": st.integers(0, 1),
            "maxProperties": st.integers(1, 2),
        },
    )
    arrays = st.fixed_dictionaries(
        {"type": st.just("array"), "items": inner},
        optional={"minItems": st.integers(0, 1), "maxItems": st.integers(1, 2)},
    )
    unions = st.fixed_dictionaries(
        {"anyOf": st.lists(inner, min_size=1, max_size=2)},
        optional={"type": st.sampled_from(["object", "integer"]), "title": st.just("t")},
    )
    return objects | arrays | unions


@given(schema=st.recursive(leaves, nested, max_leaves=6), seed=st.integers(0, 1000))
def test_generated_arguments_match_any_schema(schema: Any, seed: int) -> None:
    assume(isinstance(schema, dict))
    parameters = {**schema, "$defs": {"D": {"type": "object", "properties": {"d": INTEGER}}}}
    try:
        bound = arguments_schema(parameters, "parameters")
        texts = written(bound, Random(seed))
    except (UnsupportedRequest, RuntimeError):  # xgrammar's own refusal, which becomes one of ours
        return

    for text in texts:
        arguments = json.loads(text)
        assert isinstance(arguments, dict)
        jsonschema.validate(arguments, parameters)
