"""The request models of tools and of the format of the answer."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from proctor.server.config.limits import MAX_NAME
from proctor.server.engines.tool_calls import MAX_PATTERN
from proctor.server.schemas.base import (
    NULL,
    Flag,
    Kind,
    LenientModel,
    Text,
    kind_of,
    needs,
    none_of,
)
from proctor.server.schemas.tools import (
    MAX_GRAMMAR,
    MAX_TOOLS,
    FunctionName,
    Parameters,
    Schema,
)

PRESENT: dict[str, Any] = {"not": NULL}
GRAMMAR_NEEDS_DEFINITION = needs("type", {"const": "grammar"}, syntax=PRESENT, definition=PRESENT)
FORMAT_NEEDS_SCHEMA = needs("type", {"const": "json_schema"}, schema=PRESENT)
CHOICE_NEEDS_NAMES: list[Any] = [
    needs("type", {"const": "allowed_tools"}, tools=PRESENT),
    needs("type", {"enum": ["function", "custom"]}, name=PRESENT),
]
"""The checks of the validators, as JSON schemas."""


class FunctionTool(LenientModel):
    """A function that the model may call."""

    type: Literal["function"]
    """The type of the tool."""
    name: FunctionName
    """The name of the function."""
    description: Text | None = None
    """A description of what the function does, for the model."""
    parameters: Parameters | None = None
    """The JSON schema of the arguments, which must be an object."""
    strict: Flag | None = None
    """Whether to enforce the schema when the model chooses to call the function."""


class ToolGrammar(LenientModel):
    """The format of a custom tool's input."""

    model_config = ConfigDict(json_schema_extra=GRAMMAR_NEEDS_DEFINITION)

    type: Literal["text", "grammar"]
    """The type of the format: free text, or a grammar."""
    syntax: Literal["lark", "regex"] | None = None
    """The syntax of the grammar. A regular expression is enforced; a Lark grammar is shown to the
    model with the tool's description."""
    definition: Annotated[Text, Field(min_length=1, max_length=MAX_GRAMMAR)] | None = None
    """The grammar."""

    @model_validator(mode="after")
    def _grammar_is_complete(self) -> "ToolGrammar":
        for name in ("syntax", "definition"):
            if self.type == "grammar" and getattr(self, name) is None:
                raise _error(name, "is required for the type 'grammar'")
        if self.pattern is not None and len(self.pattern) > MAX_PATTERN:
            raise _error("definition", f"must have at most {MAX_PATTERN} characters")
        return self

    @property
    def pattern(self) -> str | None:
        """The regular expression that the input must match."""
        return self.definition if self.type == "grammar" and self.syntax == "regex" else None

    @property
    def lark(self) -> str | None:
        """The Lark grammar that the input should match."""
        return self.definition if self.type == "grammar" and self.syntax == "lark" else None


def _error(field: str, reason: str) -> PydanticCustomError:
    return PydanticCustomError("field", "{reason}", {"field": field, "reason": reason})


class CustomTool(LenientModel):
    """A tool whose input is text."""

    type: Literal["custom"]
    """The type of the tool."""
    name: FunctionName
    """The name of the tool."""
    description: Text | None = None
    """A description of what the tool does, for the model."""
    format: ToolGrammar | None = None
    """The format of the input. Defaults to free text."""


class OtherTool(LenientModel):
    """A tool of another type, such as one that OpenAI's servers run. It is ignored."""

    type: Annotated[Kind, Field(json_schema_extra=none_of("function", "custom", "namespace"))]
    """The type of the tool."""


class OtherInnerTool(LenientModel):
    """A tool of another type in a namespace. It is ignored."""

    type: Annotated[Kind, Field(json_schema_extra=none_of("function", "custom"))]
    """The type of the tool."""


def _tag(value: Any) -> str:
    kind = kind_of(value)
    return f"{kind}_tool" if kind in ("function", "custom", "namespace") else "other_tool"


def _inner_tag(value: Any) -> str:
    tag = _tag(value)
    return "other_tool" if tag == "namespace_tool" else tag


ToolInNamespace = Annotated[
    Annotated[FunctionTool, Tag("function_tool")]
    | Annotated[CustomTool, Tag("custom_tool")]
    | Annotated[OtherInnerTool, Tag("other_tool")],
    Discriminator(_inner_tag),
]


class NamespaceTool(LenientModel):
    """Tools under a common name, which the model sees as `namespace__tool`."""

    type: Literal["namespace"]
    """The type of the tool."""
    name: FunctionName
    """The name of the namespace."""
    description: Text | None = None
    """A description of the namespace. The model sees it with that of the first
    tool."""
    tools: Annotated[tuple[ToolInNamespace, ...], Field(max_length=MAX_TOOLS)]
    """The tools."""


Tool = FunctionTool | CustomTool | NamespaceTool | OtherTool
InputTool = Annotated[
    Annotated[FunctionTool, Tag("function_tool")]
    | Annotated[CustomTool, Tag("custom_tool")]
    | Annotated[NamespaceTool, Tag("namespace_tool")]
    | Annotated[OtherTool, Tag("other_tool")],
    Discriminator(_tag),
]


class ToolName(LenientModel):
    """A tool named by `tool_choice`."""

    type: Kind
    """The type of the tool: `function`, `custom`, or `namespace` for all tools of a namespace."""
    name: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The name of the tool."""
    namespace: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The namespace of the tool."""


class ToolChoice(ToolName):
    """The tool that the model must call, or the tools that it may call."""

    model_config = ConfigDict(json_schema_extra={"allOf": CHOICE_NEEDS_NAMES})

    type: Literal["function", "custom", "allowed_tools"]
    """`function` and `custom` require a call of one tool, and `allowed_tools` restricts the model
    to some of `tools`."""
    mode: Literal["auto", "required"] = "auto"
    """Whether the model must call one of the allowed tools."""
    tools: Annotated[tuple[ToolName, ...], Field(min_length=1, max_length=MAX_TOOLS)] | None = None
    """The allowed tools."""

    @model_validator(mode="after")
    def _fields_match_type(self) -> "ToolChoice":
        required = "tools" if self.type == "allowed_tools" else "name"
        if getattr(self, required) is None:
            raise _error(required, f"is required for the type '{self.type}'")
        return self

    @property
    def allowed(self) -> Sequence[ToolName]:
        """The allowed tools, or the one that must be called."""
        return (self,) if self.tools is None else self.tools


class TextFormat(LenientModel):
    """The format of the answer."""

    model_config = ConfigDict(json_schema_extra=FORMAT_NEEDS_SCHEMA)

    type: Literal["text", "json_object", "json_schema"]
    """The type of the format: free text, any JSON object, or JSON that matches a schema."""
    name: FunctionName | None = None
    """The name of the schema. The model does not see it."""
    schema_: Annotated[Schema | None, Field(alias="schema")] = None
    """The JSON schema. Required for the type `json_schema`."""
    strict: Flag | None = None
    """Whether to enforce the schema. It is always enforced."""

    @model_validator(mode="after")
    def _has_schema(self) -> "TextFormat":
        if self.type == "json_schema" and self.schema_ is None:
            raise _error("schema", "is required for the type 'json_schema'")
        return self


class TextConfig(LenientModel):
    """Options of the answer."""

    format: TextFormat | None = None
    """The format of the answer. The thinking is not constrained."""
