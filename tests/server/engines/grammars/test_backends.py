"""Which backend a grammar is tried in, and that it enforces the whole grammar."""

import json
from random import Random
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("vllm", reason="the CPU engine is not installed")

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.structured_output.request import get_structured_output_key

from proctor.server.config.settings import DEMO
from proctor.server.engines.grammars.backends import candidate_backends, choose
from proctor.server.engines.grammars.frames import CheckRequest, CheckResult
from proctor.server.engines.grammars.trial import Trial
from proctor.server.engines.tool_calls import Kind
from tests.server.engines.vllm.test_tool_schemas import INTEGER, WORD, leaves, nested

# vLLM passes XGrammar a deprecated argument.
pytestmark = pytest.mark.filterwarnings("ignore:max_rollback_tokens:DeprecationWarning")

BOTH = ("xgrammar", "guidance")
LONGEST = 400
A = {"type": "object", "properties": {"a": INTEGER}, "required": ["a"]}

PLAIN: list[Any] = [
    {},
    A,
    {"type": "object"},
    {"enum": ["a", 1, None]},
    {"type": "string", "enum": ["a", "b"]},
    {"type": ["string", "null"], "enum": ["a", None]},
    {"anyOf": [A, {"type": "null"}], "title": "a", "description": "about it", "default": None},
    {"$ref": "#/$defs/A", "$defs": {"A": A}},
    {"type": "array", "items": A, "minItems": 1, "maxItems": 9},
    {"type": "object", "properties": {"pattern": {"type": "string"}, "required": WORD}},
    {**A, "minProperties": 1},
]
LONG: list[Any] = [
    {"type": "string", "maxLength": 3},
    {"type": "string", "pattern": "^a$"},
    {"type": "array", "items": {"type": "integer"}, "maxItems": 1000},
    {"properties": {"a": {"items": {"type": "string", "minLength": 100}}}},
    {"patternProperties": {"^a": {"type": "integer"}}},
]
MORE: list[Any] = [
    {"multipleOf": 7},
    {"minimum": 3},
    {"type": "object", "required": ["a"]},
    {"allOf": [{"type": "string"}, {"enum": ["yes", "no"]}]},
    {"type": "string", "allOf": [{"enum": ["yes", "no"]}]},
    {"type": "integer", "enum": [1, "x"]},
    {"not": {"type": "integer"}},
    {"if": {"required": ["a"]}, "then": {"required": ["b"]}},
    {**A, "anyOf": [{"required": ["b"]}, {"required": ["c"]}]},
    {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    {"$ref": "#/$defs/A", "maxProperties": 2, "$defs": {"A": A}},
    {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
    {"type": "array", "contains": {"const": 1}},
    {"anyOf": 3, "oneOf": 3},
    {"allOf": [3]},
    {"properties": {"a": {"$ref": 3, "type": "string"}}},
    {"required": ["a"], "properties": {"a": {"enum": [1], "type": 3}}},
]


REASONS = (
    "can(not| only)? be enforced|requires a 'type'|a JSON schema|no value|must be an object"
    "|must be local"
)


def in_tag(schema: Any) -> str:
    content = {"type": "json_schema", "json_schema": schema}
    tag = {"type": "tag", "begin": "<a>", "content": content, "end": "</a>"}
    return json.dumps({"type": "structural_tag", "format": {"type": "or", "elements": [tag]}})


@pytest.mark.parametrize("schema", PLAIN)
def test_xgrammar_gets_schemas_that_it_enforces(schema: Any) -> None:
    assert choose(Kind.JSON, schema, "auto", BOTH) == ("auto",)
    assert choose(Kind.STRUCTURAL_TAG, in_tag(schema), "auto", BOTH) == ("auto",)


@pytest.mark.parametrize("schema", LONG)
def test_llguidance_comes_first_where_xgrammar_is_slow(schema: Any) -> None:
    assert choose(Kind.JSON, schema, "auto", BOTH) == ("guidance", "xgrammar")
    assert choose(Kind.JSON, schema, "auto", ("xgrammar",)) == ("auto",)
    assert choose(Kind.JSON, schema, "xgrammar", ("xgrammar",)) == ("xgrammar",)


@pytest.mark.parametrize("schema", MORE)
def test_xgrammar_does_not_get_keywords_that_it_ignores(schema: Any) -> None:
    assert choose(Kind.JSON, schema, "auto", BOTH) == ("guidance",)
    for named, usable in (("auto", ("xgrammar",)), ("xgrammar", ("xgrammar",))):
        with pytest.raises(ValueError, match=REASONS):
            choose(Kind.JSON, schema, named, usable)
    with pytest.raises(ValueError, match=REASONS):
        choose(Kind.STRUCTURAL_TAG, in_tag(schema), "auto", BOTH)


def test_llguidance_gets_patterns() -> None:
    assert choose(Kind.REGEX, "a", "auto", BOTH) == ("guidance",)
    assert choose(Kind.REGEX, "a", "auto", ("xgrammar",)) == ("auto",)
    assert choose(Kind.REGEX, "a", "xgrammar", ("xgrammar",)) == ("xgrammar",)


@pytest.mark.parametrize("kind", Kind)
def test_the_operators_backend_is_used(kind: Kind) -> None:
    assert choose(kind, {"not": {}}, "outlines", ("outlines",)) == ("outlines",)
    assert candidate_backends("outlines") == ("outlines",)
    assert candidate_backends("auto") == BOTH


@pytest.mark.parametrize("tag", ["", "nothing", "3", '{"json_schema": 3}', "[" * 2000])
def test_invalid_structural_tags_are_left_to_vllm(tag: str) -> None:
    assert choose(Kind.STRUCTURAL_TAG, tag, "auto", BOTH) == ("auto",)


@pytest.fixture(scope="module")
def trial() -> Trial:
    config = AsyncEngineArgs(
        model=str(DEMO / "model"), enable_chunked_prefill=False
    ).create_engine_config()
    return Trial(config)


def tried(trial: Trial, kind: Kind, value: Any) -> CheckResult:
    return trial.check_grammar(CheckRequest(kind.value, value, seconds=0, memory_mib=0, nice=0))


def written(trial: Trial, schema: Any, backend: str, rng: Random) -> str | None:
    """Return a random text of the grammar, or None if it does not end."""
    kind, spec = get_structured_output_key(StructuredOutputsParams(json=schema))
    backends, tokenizer = trial.backends, trial.tokenizer
    eos = tokenizer.eos_token_id
    grammar = backends.compile_with(backend, kind, spec, {eos})
    bitmask = backends.allocate_token_bitmask(1)
    tokens: list[int] = []
    while len(tokens) < LONGEST:
        grammar.fill_bitmask(bitmask, 0)
        bits = np.unpackbits(bitmask.numpy()[0].view(np.uint8), bitorder="little")
        allowed = [int(each) for each in np.flatnonzero(bits[: backends.vocab_size])]
        closing = [each for each in allowed if tokenizer.decode([each])[:1] in ('"', "}", "]")]
        if eos in allowed and (len(allowed) == 1 or rng.random() < 0.5):
            return str(tokenizer.decode(tokens))
        tokens.append(rng.choice(closing if closing and rng.random() < 0.5 else allowed))
        assert grammar.accept_tokens("one", [tokens[-1]])
        if grammar.is_terminated():
            return str(tokenizer.decode(tokens, skip_special_tokens=True))
    return None


@pytest.mark.parametrize("schema", [*PLAIN, *LONG, *MORE])
def test_answers_are_valid_or_the_schema_is_refused(trial: Trial, schema: Any) -> None:
    found = tried(trial, Kind.JSON, schema)
    if found.backend is None:
        assert found.refused
        return
    for seed in range(10):
        text = written(trial, schema, found.backend, Random(seed))
        if text is not None:
            jsonschema.validate(json.loads(text), schema)


more_leaves = st.sampled_from(
    [
        {"multipleOf": 7},
        {"type": "integer", "multipleOf": 3, "minimum": 2, "maximum": 50},
        {"type": "string", "pattern": "^[a-c]{2,70}$"},
        {"type": "string", "pattern": 'a|^"'},
        {"type": "string", "pattern": "a", "maxLength": 4},
        {"not": {"type": "string"}},
        {"minLength": 2},
        {"type": "array", "items": True, "uniqueItems": True},
        {"oneOf": [{"type": "integer"}, {"const": "x"}]},
        {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(schema=st.recursive(leaves | more_leaves, nested, max_leaves=5), seed=st.integers(0, 999))
def test_answers_are_valid_by_any_schema(trial: Trial, schema: Any, seed: int) -> None:
    assume(isinstance(schema, dict))
    whole = {**schema, "$defs": {"D": {"type": "object", "properties": {"d": INTEGER}}}}
    found = tried(trial, Kind.JSON, whole)
    if found.backend is None:
        return
    text = written(trial, whole, found.backend, Random(seed))
    if text is not None:
        jsonschema.validate(json.loads(text), whole)


@pytest.mark.parametrize("grammar", ["root ::= a\na ::= b\nb ::= a", 'root ::= root "a"'])
def test_a_grammar_without_any_text_is_refused(trial: Trial, grammar: str) -> None:
    assert tried(trial, Kind.GRAMMAR, grammar).refused == "no text matches it"


def test_errors_of_llguidance_are_shortened_to_one_line(trial: Trial) -> None:
    refused = tried(trial, Kind.REGEX, "(.*.*)*" * 200).refused
    assert refused == "lexer error: too many expressions constructed"
    refused = tried(trial, Kind.REGEX, "a" * 4000 + "(").refused
    assert refused is not None
    assert len(refused) <= 300
    assert "\n" not in refused
