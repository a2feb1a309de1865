"""What a request binds its answer to: tools, and the forms of structured output."""

from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, ConfigDict, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from proctor.server.engines.grammars.complexity import MAX_PATTERN
from proctor.server.engines.tool_calls import Constraint, Kind, ToolChoice
from proctor.server.errors import BadRequest
from proctor.server.schemas.base import (
    NULL,
    Flag,
    LenientModel,
    RequestModel,
    Text,
    exactly_one,
    needs,
)

MAX_TOOLS = 128
MAX_FUNCTION_NAME = 64
MAX_CHOICES = 1024
MAX_CHOICE_LENGTH = 4096
MAX_GRAMMAR = 65536
MAX_SCHEMA_BYTES = 65536
"""A grammar is made of it, which takes time by more than its length."""

JSON_TYPES = 7
"""There are no more, `integer` counted as one."""

FunctionName = Annotated[
    str, Strict(), Field(min_length=1, max_length=MAX_FUNCTION_NAME, pattern=r"^[A-Za-z0-9_.:-]+$")
]


def _bytes(schema: dict[str, Any]) -> int:
    try:
        return len(orjson.dumps(schema))
    except TypeError:
        raise PydanticCustomError("schema", "Its integers should fit into 64 bits") from None


def _is_short(schema: dict[str, Any]) -> dict[str, Any]:
    if _bytes(schema) > MAX_SCHEMA_BYTES:
        limit = {"limit": MAX_SCHEMA_BYTES}
        raise PydanticCustomError("schema", "It should be at most {limit} bytes of JSON", limit)
    return schema


def _is_of_objects(schema: dict[str, Any]) -> dict[str, Any]:
    _bytes(schema)
    kind = schema.get("type", "object")
    one_of = isinstance(kind, list) and "object" in kind and len(kind) <= JSON_TYPES
    if kind != "object" and not one_of:
        raise PydanticCustomError("schema", "Its 'type' should be 'object': arguments are one")
    return schema


OF_OBJECTS: dict[str, Any] = {
    "properties": {
        "type": {
            "anyOf": [
                {"const": "object"},
                {"type": "array", "contains": {"const": "object"}, "maxItems": JSON_TYPES},
            ]
        }
    }
}
"""What `_is_of_objects` checks, as JSON schema."""

SCHEMA_WHERE_IT_BELONGS: dict[str, Any] = {
    **needs("type", {"const": "json_schema"}, json_schema={"not": NULL}),
    "else": {"properties": {"json_schema": NULL}},
}

Schema = Annotated[dict[str, Any], AfterValidator(_is_short)]
Parameters = Annotated[
    dict[str, Any], AfterValidator(_is_of_objects), Field(json_schema_extra=OF_OBJECTS)
]


class Function(LenientModel):
    """A function that the model may call."""

    name: FunctionName
    """Its name."""
    description: Text | None = None
    """What it does, for the model."""
    parameters: Parameters | None = None
    """A JSON schema of its arguments, which are an object; none if unset."""
    strict: Flag | None = None
    """Whether the arguments of a call that the model makes by itself must match the schema. Those
    of a call that it must make always do."""


class Tool(LenientModel):
    """A tool that the model may use."""

    type: Literal["function"]
    """The kind of tool; functions are the only one."""
    function: Function
    """What can be called."""

    def to_plain(self) -> dict[str, Any]:
        """The tool as templates and parsers take it."""
        return {"type": self.type, "function": self.function.given()}


class FunctionChoice(RequestModel):
    """Names a function."""

    name: FunctionName
    """The name of one of the tools."""


class NamedTool(RequestModel):
    """The tool that must be called."""

    type: Literal["function"]
    """The kind of tool."""
    function: FunctionChoice
    """Which one."""


class JsonSchema(RequestModel):
    """A JSON schema for the answer."""

    name: FunctionName
    """A name for it."""
    schema_: Annotated[Schema | None, Field(alias="schema")] = None
    """The schema; any object if unset."""
    description: Text | None = None
    """What it is for; the model is not told."""
    strict: Flag | None = None
    """Whether the answer must match; it always must."""


class ResponseFormat(RequestModel):
    """What the answer must be."""

    model_config = ConfigDict(json_schema_extra=SCHEMA_WHERE_IT_BELONGS)

    type: Literal["text", "json_object", "json_schema"]
    """Free text, any JSON object, or JSON of a schema."""
    json_schema: JsonSchema | None = None
    """The schema, for type `json_schema`."""

    @model_validator(mode="after")
    def _schema_where_it_belongs(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            reason = "is needed for type 'json_schema', and for no other"
            raise PydanticCustomError(
                "field", "{reason}", {"field": "json_schema", "reason": reason}
            )
        return self

    def constraint(self) -> Constraint | None:
        """What it binds the answer to; text binds it to nothing."""
        if self.type == "text":
            return None
        schema = self.json_schema.schema_ if self.json_schema else None
        if schema is None:
            return Constraint(Kind.JSON_OBJECT, True, "response_format")
        return Constraint(Kind.JSON, schema, "response_format")


class StructuredOutputs(RequestModel):
    """vLLM's ways to bind the answer; one of them is given."""

    model_config = ConfigDict(json_schema_extra=exactly_one(*(kind.value for kind in Kind)))

    json_: Annotated[Schema | None, Field(alias="json")] = None
    """A JSON schema."""
    json_object: Literal[True] | None = None
    """Any JSON object."""
    regex: Annotated[Text, Field(max_length=MAX_PATTERN)] | None = None
    """A regular expression that the whole answer matches."""
    choice: (
        Annotated[
            list[Annotated[Text, Field(min_length=1, max_length=MAX_CHOICE_LENGTH)]],
            Field(min_length=1, max_length=MAX_CHOICES),
        ]
        | None
    ) = None
    """Texts of which the answer is one."""
    grammar: Annotated[Text, Field(min_length=1, max_length=MAX_GRAMMAR)] | None = None
    """A grammar in EBNF or Lark."""
    structural_tag: Annotated[Text, Field(min_length=1, max_length=MAX_GRAMMAR)] | None = None
    """Tags between which the answer is bound, as JSON in xgrammar's format."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "StructuredOutputs":
        given = self.given()
        if len(given) != 1:
            told = f"not {' and '.join(given)}" if given else "none is given"
            raise PydanticCustomError(
                "one", "It should hold one constraint, {told}", {"told": told}
            )
        return self

    def constraint(self) -> Constraint:
        """What it binds the answer to."""
        ((name, value),) = self.given().items()
        return Constraint(Kind(name), value, f"structured_outputs.{name}")


def choose_tools(
    tools: list[Tool],
    choice: Literal["none", "auto", "required"] | NamedTool | None,
    constraint: Constraint | None,
    *,
    parallel: bool,
) -> ToolChoice | None:
    """What a request wants of its tools, or None if it wants no calls.

    Raises:
        BadRequest: if the choice does not go with the tools.
    """
    names = [tool.function.name for tool in tools]
    if len({*names}) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRequest(f"'tools' has two functions of the name '{twice}'", param="tools")
    if choice == "none":
        return None
    if not tools:
        if choice in (None, "auto"):
            return None
        raise BadRequest("'tool_choice' asks for a call, but 'tools' is empty", param="tool_choice")
    named = choice.function.name if isinstance(choice, NamedTool) else None
    if named is not None and named not in names:
        raise BadRequest(
            f"'tool_choice' names '{named}', which is not among 'tools': {', '.join(names)}",
            param="tool_choice",
        )
    mode = "named" if isinstance(choice, NamedTool) else choice or "auto"
    plain = tuple(tool.to_plain() for tool in tools)
    return ToolChoice(plain, mode, named, parallel, constraint)
