"""Which constraints are refused by their text alone."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.server.engines.fake import FakeEngine
from proctor.server.engines.grammars.complexity import (
    MAX_CHOICES_LENGTH,
    MAX_GROUPS,
    MAX_NESTING,
    MAX_REPEATED,
    check_complexity,
)
from proctor.server.engines.tool_calls import MAX_PATTERN, Constraint, Kind
from proctor.server.errors import UnsupportedRequest
from tests.server.harness import CHAT, body, client

EMAIL = r"^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$"
URL = (
    r"^https?://(?:[a-zA-Z]|[0-9]|[$-_@.&+]|[!*\(\),]|(?:%[0-9a-fA-F][0-9a-fA-F]))+"
    r"(?::\d{1,5})?(?:/[^\s?#]{0,1024})*(?:\?[^\s#]{0,1024})?(?:#\S{0,256})?$"
)
IPV6 = r"(?:(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|::(?:[0-9a-fA-F]{1,4}:){0,6}[0-9a-fA-F]{1,4})"
SEMVER = r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*))*))?$"

ORDINARY = [
    "",
    "[a-z]{1,64}",
    ".{0,2000}",
    "^.{1,5000}$",
    r"[\s\S]{0,10000}",
    "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    r"^([a-z0-9]+(-[a-z0-9]+)*\.)+[a-z]{2,63}$",
    r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ$",
    r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$",
    r"\(\(\({3}[({[]{9}",
    EMAIL,
    URL,
    IPV6,
    SEMVER,
]

GRAMMARS = [
    'root ::= ("(" root ")" | [0-9]+ | "{" [^}]{0,99} "}")*  # (((((((((((((((((((((((((((((((((',
    'start: "a" ~ 1..1000 | /[a-z]{1,64}/\nword: "b" ~ 3',
    'string ::= "\\"" ( [^"\\\\\\x7F] | "\\\\" (["\\\\/bfnrt] | "u" [0-9a-fA-F]{4}) )* "\\""',
]


def refused(kind: Kind, value: Any, field: str = "field") -> UnsupportedRequest:
    with pytest.raises(UnsupportedRequest) as caught:
        check_complexity(Constraint(kind, value, field))
    assert f"'{field}" in str(caught.value)
    return caught.value


@pytest.mark.parametrize("pattern", ORDINARY)
def test_ordinary_patterns_are_accepted(pattern: str) -> None:
    check_complexity(Constraint(Kind.REGEX, pattern, "field"))
    check_complexity(Constraint(Kind.JSON, {"type": "string", "pattern": pattern}, "field"))


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_ordinary_grammars_are_accepted(grammar: str) -> None:
    check_complexity(Constraint(Kind.GRAMMAR, grammar, "field"))


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("a" * (MAX_PATTERN + 1), f"{MAX_PATTERN} characters"),
        ("a{0,48000}", "repeats too much"),
        ("a{48000}", "repeats too much"),
        ("a{48000,}", "repeats too much"),
        ("(a{0,150}){0,150}", "repeats too much"),
        ("a{0,5100}" * 2, "repeats too much"),
        ("(?:[^a]{101}){100}", "repeats too much"),
        ("((((a{1,100}){1,100}){1,100}){1,100}){50,100}", "repeats too much"),
        ("a{1," + "9" * 4000 + "}", "repeats too much"),
        ("a" + "*" * (MAX_GROUPS + 1), "nested more than"),
        ("(" * (MAX_GROUPS + 1), "nested more than"),
    ],
)
def test_complex_patterns_are_refused_by_name(pattern: str, why: str) -> None:
    assert why in str(refused(Kind.REGEX, pattern))
    error = refused(Kind.JSON, {"items": [{"pattern": pattern}]})
    assert why in str(error)
    assert error.param == "field.items[0].pattern"


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        ('root ::= (("a"{1,1000}){1,1000}){1,1000}', "repeats too much"),
        ('root ::= "abcdefghij"{1,1100}', "repeats too much"),
        ("start: (x ~ 1..1000) ~ 1..1000", "repeats too much"),
        ("start: x ~ 20000", "repeats too much"),
        ("root ::= " + "(" * 99 + '"a"', "nested more than"),
    ],
)
def test_complex_grammars_are_refused(grammar: str, why: str) -> None:
    assert why in str(refused(Kind.GRAMMAR, grammar))


STARS = "a" * (MAX_PATTERN + 1)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"pattern": STARS}, "pattern"),
        ({"properties": {"a": {"pattern": STARS}}}, "properties.a.pattern"),
        ({"properties": {"enum": {"pattern": STARS}}}, "properties.enum.pattern"),
        ({"properties": {"properties": {"pattern": STARS}}}, "properties.properties.pattern"),
        ({"$defs": {"x": {"anyOf": [{}, {"pattern": STARS}]}}}, "$defs.x.anyOf[1].pattern"),
        ({"propertyNames": {"pattern": STARS}}, "propertyNames.pattern"),
    ],
)
def test_the_error_names_the_path_in_the_schema(schema: dict[str, Any], path: str) -> None:
    in_it = "response_format.json_schema.schema."
    assert refused(Kind.JSON, schema, "response_format").param == in_it + path
    tag = json.dumps({"format": {"type": "json_schema", "json_schema": schema}})
    error = refused(Kind.STRUCTURAL_TAG, tag, "structured_outputs.structural_tag")
    assert error.param == "structured_outputs.structural_tag"
    assert f"format.json_schema.{path}" in str(error)


def test_pattern_properties_are_checked() -> None:
    error = refused(Kind.JSON, {"patternProperties": {"a{99999}": {}}})
    assert error.param == "field.patternProperties.a{99999}"


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [{"pattern": STARS}]},
        {"const": {"pattern": STARS}},
        {"properties": {"pattern": {"type": "string"}, "grammar": True}},
        {"examples": [[[[[]]]]] * 99},
    ],
)
def test_values_are_not_checked_as_patterns(schema: dict[str, Any]) -> None:
    check_complexity(Constraint(Kind.JSON, schema, "field"))


def test_paths_in_errors_have_a_bounded_length() -> None:
    schema = {"properties": {"x" * 9999: {"pattern": STARS}}}
    with pytest.raises(UnsupportedRequest) as caught:
        check_complexity(Constraint(Kind.JSON, schema, "response_format"))
    assert len(caught.value.param) == 128


def within(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"not": schema}
    return schema


def test_nesting_is_bounded() -> None:
    check_complexity(Constraint(Kind.JSON, within(MAX_NESTING), "field"))
    assert "levels deep" in str(refused(Kind.JSON, within(MAX_NESTING + 1)))
    assert "levels deep" in str(refused(Kind.STRUCTURAL_TAG, "[" * 200_000))
    assert "levels deep" in str(refused(Kind.STRUCTURAL_TAG, "[" * 99 + "]" * 99))


def test_the_number_of_subschemas_is_bounded() -> None:
    assert "objects and lists" in str(refused(Kind.JSON, {"anyOf": [{}] * 40_000}))


def test_the_total_length_of_choices_is_bounded() -> None:
    each = MAX_CHOICES_LENGTH // 16
    check_complexity(Constraint(Kind.CHOICE, ["x" * each] * 16, "field"))
    assert "together" in str(refused(Kind.CHOICE, ["x" * each] * 17))


@pytest.mark.parametrize("tag", ["", "nothing", "R\u00cf", "{", "[" * 2000])
def test_a_tag_that_is_not_json_is_refused(tag: str) -> None:
    assert refused(Kind.STRUCTURAL_TAG, tag).param == "field"


@pytest.mark.parametrize("tag", ["3", "[1]", '"pattern"'])
def test_invalid_structural_tags_are_left_to_vllm(tag: str) -> None:
    check_complexity(Constraint(Kind.STRUCTURAL_TAG, tag, "field"))


SIGNS = st.text(alphabet='ab(){}[]|*+?,0123456789\\"#~/ \n', max_size=80)
KINDS = st.sampled_from([Kind.REGEX, Kind.GRAMMAR, Kind.STRUCTURAL_TAG])


@given(kind=KINDS, text=SIGNS | st.text())
def test_any_text_is_accepted_or_refused(kind: Kind, text: str) -> None:
    with suppress(UnsupportedRequest):
        check_complexity(Constraint(kind, text, "field"))


def repetitions(inner: st.SearchStrategy[tuple[str, int]]) -> st.SearchStrategy[tuple[str, int]]:
    """Build patterns, with their lengths when all repetitions are expanded."""
    counts = st.tuples(st.integers(0, 40), st.integers(1, 40)).map(sorted)
    counted = st.tuples(inner, counts).map(
        lambda made: (f"({made[0][0]}){{{made[1][0]},{made[1][1]}}}", made[0][1] * made[1][1])
    )
    pairs = st.tuples(inner, inner).map(lambda two: (two[0][0] + two[1][0], two[0][1] + two[1][1]))
    return counted | pairs


PATTERNS = st.recursive(st.sampled_from([("a", 1), (r"\(", 1), ("[({]", 1)]), repetitions)


@given(made=PATTERNS)
def test_nested_repetitions_are_multiplied(made: tuple[str, int]) -> None:
    pattern, size = made
    constraint = Constraint(Kind.REGEX, pattern, "field")
    if size > 2 * MAX_REPEATED:
        refused(Kind.REGEX, pattern)
    elif size < MAX_REPEATED // 2:
        check_complexity(constraint)


@pytest.mark.parametrize("path", [CHAT, "/v1/route"])
async def test_complexity_is_checked_before_the_engine_is_involved(path: str) -> None:
    engine = FakeEngine()
    schema = {"properties": {"a": {"type": "string", "pattern": "a" + "*" * 40_000}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    async with client(engine) as http:
        response = await http.post(path, json=body(response_format=form))

    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == "response_format.json_schema.schema.properties.a.pattern"
    assert "4096" in error["message"]
    assert not engine.jobs
