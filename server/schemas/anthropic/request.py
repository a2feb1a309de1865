"""The request models of Anthropic's Messages API."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from proctor.server.config.limits import MAX_NAME
from proctor.server.schemas.anthropic.blocks import Content, TextBlocks
from proctor.server.schemas.base import (
    NULL,
    AgentModel,
    Flag,
    Float,
    Int,
    LenientModel,
    Text,
    needs,
)
from proctor.server.schemas.budget import BudgetFields, Effort, Thinking
from proctor.server.schemas.generation import MAX_TOP_K, Stops
from proctor.server.schemas.messages import MAX_MESSAGES
from proctor.server.schemas.sessions import SessionFields
from proctor.server.schemas.tools import MAX_TOOLS, FunctionName, Parameters, Schema

CUSTOM = "custom"
NAME_MATCHES_TYPE: dict[str, Any] = {
    **needs("type", {"const": "tool"}, name={"not": NULL}),
    "else": {"properties": {"name": NULL}},
}
"""The check of `_name_matches_type`, as a JSON schema."""


class InputMessage(LenientModel):
    """A message of the conversation."""

    role: Literal["user", "assistant", "system"]
    """The role of the message's author."""
    content: Content
    """The content of the message: a string, or content blocks."""


class MessagesThinking(AgentModel, Thinking):
    """Options of the thinking budget."""

    display: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """Whether the response has the text of the thinking. `omitted` leaves it empty; all other
    values, such as `summarized` and `updates`, include it."""


class InputTool(LenientModel):
    """A tool that the model may call."""

    type: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The type of the tool: `custom`, the default. Other tools, which Anthropic's servers run or
    define, are ignored."""
    name: FunctionName
    """The name of the tool."""
    description: Text | None = None
    """A description of what the tool does, for the model."""
    input_schema: Parameters | None = None
    """The JSON schema of the tool's input, which must be an object."""
    strict: Flag | None = None
    """Whether to enforce the schema when the model chooses to call the tool."""

    @property
    def is_custom(self) -> bool:
        """Whether the client defines the tool and runs it."""
        return self.type in (None, CUSTOM)


class InputToolChoice(LenientModel):
    """Which tools the model calls."""

    model_config = ConfigDict(json_schema_extra=NAME_MATCHES_TYPE)

    type: Literal["auto", "any", "tool", "none"]
    """`auto` lets the model choose, `any` requires a call, `tool` requires a call of one tool, and
    `none` disables calls."""
    name: FunctionName | None = None
    """The name of the tool, for the type `tool`."""
    disable_parallel_tool_use: Flag | None = None
    """Whether the model may call one tool only."""

    @model_validator(mode="after")
    def _name_matches_type(self) -> "InputToolChoice":
        if (self.type == "tool") != (self.name is not None):
            reason = "is required for type 'tool', and not allowed for other types"
            raise PydanticCustomError("field", "{reason}", {"field": "name", "reason": reason})
        return self


class OutputFormat(LenientModel):
    """The format of the answer."""

    type: Literal["json_schema"]
    """The type of the format."""
    schema_: Annotated[Schema, Field(alias="schema")]
    """The JSON schema that the answer must match."""


class OutputConfig(LenientModel):
    """Options of the answer."""

    effort: Effort | None = None
    """The reasoning effort, which selects a tier by the server's configuration. Ignored if
    `thinking` is disabled or has a budget."""
    format: OutputFormat | None = None
    """The format of the answer. The thinking is not constrained."""


class PromptFields(LenientModel):
    """The fields of which the prompt is made."""

    model: Annotated[Text, Field(max_length=MAX_NAME)]
    """The name of the model, as listed by `GET /v1/models`."""
    messages: Annotated[
        tuple[InputMessage, ...], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
    ]
    """The messages of the conversation, oldest first."""
    system: TextBlocks | None = None
    """The system prompt: a string, or text blocks."""
    tools: Annotated[tuple[InputTool, ...], Field(max_length=MAX_TOOLS)] | None = None
    """The tools that the model may call."""
    tool_choice: InputToolChoice | None = None
    """Which tools the model calls. Defaults to `auto`."""
    thinking: MessagesThinking | None = None
    """Options of the thinking budget. Without it and without other fields that set the budget, the
    model does not think, as in Anthropic's API."""
    output_config: OutputConfig | None = None
    """Options of the answer."""


class CountTokensRequest(PromptFields):
    """The body of `POST /v1/messages/count_tokens`."""

    @property
    def thinks(self) -> bool:
        """Whether the prompt turns thinking on."""
        return self.thinking is not None and self.thinking.type != "disabled"


class MessagesRequest(AgentModel, PromptFields, BudgetFields):
    """The body of `POST /v1/messages`. Unknown fields are ignored, and listed in a header."""

    max_tokens: Annotated[Int, Field(ge=1)]
    """The maximum number of tokens to generate, thinking included. At most as many as the context
    has left are generated; the header `x-max-tokens` has that number if it is smaller."""
    stream: Flag | None = None
    """Whether to stream the response as server-sent events while it is generated."""
    stop_sequences: Stops | None = None
    """Texts at which the answer stops. The answer does not include them, and they do not apply to
    the thinking."""
    temperature: Annotated[Float, Field(ge=0, le=2)] | None = None
    """The sampling temperature. Defaults to the value of the tier or the model."""
    top_p: Annotated[Float, Field(gt=0, le=1)] | None = None
    """Nucleus sampling: only the most likely tokens whose probabilities add up to `top_p` are
    considered."""
    top_k: Annotated[Int, Field(ge=0, le=MAX_TOP_K)] | None = None
    """The number of most likely tokens to consider, or 0 for all."""
    session: SessionFields | None = None
    """The session that the request belongs to, and limits for all its requests together."""
