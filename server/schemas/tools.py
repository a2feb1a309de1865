"""The request models of tools and structured outputs."""

from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, ConfigDict, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from proctor.server.engines.tool_calls import MAX_PATTERN, Constraint, Kind, ToolChoice
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
"""Limited because the time to compile a schema into a grammar grows faster than its length."""

JSON_TYPES = 7
"""The number of types in JSON schema, `integer` included."""

FunctionName = Annotated[
    str, Strict(), Field(min_length=1, max_length=MAX_FUNCTION_NAME, pattern=r"^[A-Za-z0-9_.:-]+$")
]


def _size(schema: dict[str, Any]) -> int:
    try:
        return len(orjson.dumps(schema))
    except TypeError:
        message = "Integers in the schema should fit into 64 bits"
        raise PydanticCustomError("schema", message) from None


def _check_size(schema: dict[str, Any]) -> dict[str, Any]:
    if _size(schema) > MAX_SCHEMA_BYTES:
        limit = {"limit": MAX_SCHEMA_BYTES}
        message = "The schema should have at most {limit} bytes of JSON"
        raise PydanticCustomError("schema", message, limit)
    return schema


def _check_object_type(schema: dict[str, Any]) -> dict[str, Any]:
    _size(schema)
    kind = schema.get("type", "object")
    one_of = isinstance(kind, list) and "object" in kind and len(kind) <= JSON_TYPES
    if kind != "object" and not one_of:
        raise PydanticCustomError("schema", "The schema should have the type 'object'")
    return schema


OBJECT_TYPE: dict[str, Any] = {
    "properties": {
        "type": {
            "anyOf": [
                {"const": "object"},
                {"type": "array", "contains": {"const": "object"}, "maxItems": JSON_TYPES},
            ]
        }
    }
}
"""The check of `_check_object_type`, as a JSON schema."""

SCHEMA_MATCHES_TYPE: dict[str, Any] = {
    **needs("type", {"const": "json_schema"}, json_schema={"not": NULL}),
    "else": {"properties": {"json_schema": NULL}},
}

Schema = Annotated[dict[str, Any], AfterValidator(_check_size)]
Parameters = Annotated[
    dict[str, Any], AfterValidator(_check_object_type), Field(json_schema_extra=OBJECT_TYPE)
]


class Function(LenientModel):
    """A function that the model may call."""

    name: FunctionName
    """The name of the function."""
    description: Text | None = None
    """A description of what the function does, for the model."""
    parameters: Parameters | None = None
    """The JSON schema of the arguments, which must be an object. Omitting it defines a function
    without parameters."""
    strict: Flag | None = None
    """Whether to enforce the schema when the model chooses to call the function. It is always
    enforced when `tool_choice` requires the call."""


class Tool(LenientModel):
    """A tool that the model may call."""

    type: Literal["function"]
    """The type of the tool. Only `function` is supported."""
    function: Function
    """The definition of the function."""

    def to_plain(self) -> dict[str, Any]:
        """Return the tool for chat templates and parsers."""
        return {"type": self.type, "function": self.function.present_fields()}


class FunctionChoice(RequestModel):
    """A function named by `tool_choice`."""

    name: FunctionName
    """The name of the function, one of `tools`."""


class NamedTool(RequestModel):
    """The tool that the model must call."""

    type: Literal["function"]
    """The type of the tool. Only `function` is supported."""
    function: FunctionChoice
    """The function that the model must call."""


class JsonSchema(RequestModel):
    """A JSON schema for the answer."""

    name: FunctionName
    """The name of the schema."""
    schema_: Annotated[Schema | None, Field(alias="schema")] = None
    """The JSON schema. Defaults to any object."""
    description: Text | None = None
    """A description of the schema. The model does not see it."""
    strict: Flag | None = None
    """Whether to enforce the schema. It is always enforced."""


class ResponseFormat(RequestModel):
    """The format of the answer."""

    model_config = ConfigDict(json_schema_extra=SCHEMA_MATCHES_TYPE)

    type: Literal["text", "json_object", "json_schema"]
    """The type of the format: free text, any JSON object, or JSON that matches a schema."""
    json_schema: JsonSchema | None = None
    """The JSON schema. Required for the type `json_schema`, and not allowed for other types."""

    @model_validator(mode="after")
    def _schema_matches_type(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            reason = "is required for type 'json_schema', and not allowed for other types"
            raise PydanticCustomError(
                "field", "{reason}", {"field": "json_schema", "reason": reason}
            )
        return self

    def constraint(self) -> Constraint | None:
        """Return the constraint of the answer, or None for free text."""
        if self.type == "text":
            return None
        schema = self.json_schema.schema_ if self.json_schema else None
        if schema is None:
            return Constraint(Kind.JSON_OBJECT, True, "response_format")
        return Constraint(Kind.JSON, schema, "response_format")


class StructuredOutputs(RequestModel):
    """The constraint of the answer, as in vLLM. Exactly one field is required."""

    model_config = ConfigDict(json_schema_extra=exactly_one(*(kind.value for kind in Kind)))

    json_: Annotated[Schema | None, Field(alias="json")] = None
    """A JSON schema that the answer must match."""
    json_object: Literal[True] | None = None
    """Whether the answer must be a JSON object."""
    regex: Annotated[Text, Field(max_length=MAX_PATTERN)] | None = None
    """A regular expression that the whole answer must match."""
    choice: (
        Annotated[
            list[Annotated[Text, Field(min_length=1, max_length=MAX_CHOICE_LENGTH)]],
            Field(min_length=1, max_length=MAX_CHOICES),
        ]
        | None
    ) = None
    """A list of texts, one of which the answer must be."""
    grammar: Annotated[Text, Field(min_length=1, max_length=MAX_GRAMMAR)] | None = None
    """A grammar, in EBNF or Lark, that the answer must match."""
    structural_tag: Annotated[Text, Field(min_length=1, max_length=MAX_GRAMMAR)] | None = None
    """A structural tag, as JSON in xgrammar's format: the answer is constrained between its
    tags."""

    @model_validator(mode="after")
    def _exactly_one(self) -> "StructuredOutputs":
        names = list(self.present_fields())
        if len(names) != 1:
            message = "Input should have exactly one constraint, got {names}"
            raise PydanticCustomError("one", message, {"names": " and ".join(names) or "none"})
        return self

    def constraint(self) -> Constraint:
        """Return the constraint of the answer."""
        ((name, value),) = self.present_fields().items()
        return Constraint(Kind(name), value, f"structured_outputs.{name}")


def choose_tools(
    tools: list[Tool],
    choice: Literal["none", "auto", "required"] | NamedTool | None,
    constraint: Constraint | None,
    *,
    parallel: bool,
) -> ToolChoice | None:
    """Return the tools and whether to call them, or None if no calls are allowed.

    Raises:
        BadRequest: if two tools have the same name, or the choice contradicts the tools.
    """
    names = [tool.function.name for tool in tools]
    if len({*names}) < len(names):
        duplicate = next(name for name in names if names.count(name) > 1)
        message = f"'tools' has several functions named '{duplicate}'. Names must be unique."
        raise BadRequest(message, param="tools")
    if choice == "none":
        return None
    if not tools:
        if choice in (None, "auto"):
            return None
        raise BadRequest("'tool_choice' requires 'tools', which is empty.", param="tool_choice")
    named = choice.function.name if isinstance(choice, NamedTool) else None
    if named is not None and named not in names:
        raise BadRequest(
            f"'tool_choice' names '{named}', which is not in 'tools': {', '.join(names)}.",
            param="tool_choice",
        )
    mode = "named" if isinstance(choice, NamedTool) else choice or "auto"
    plain = tuple(tool.to_plain() for tool in tools)
    return ToolChoice(plain, mode, named, parallel, constraint)
