"""The request models of the content blocks of Anthropic's messages."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from proctor.server.config.limits import MAX_NAME
from proctor.server.schemas.base import MAX_PARTS, Flag, Kind, LenientModel, Text, kind_of, none_of
from proctor.server.schemas.messages import MAX_ID

MAX_RECORD = 2**20
"""The maximum length of a signature or of redacted thinking, in characters."""

UNSUPPORTED = ("image", "document")

TAGS = {
    "thinking": "thinking",
    "redacted_thinking": "redacted_thinking",
    "tool_use": "tool_use",
    "tool_result": "tool_result",
    **dict.fromkeys(("text", *UNSUPPORTED), "text"),
}
"""The tags of the types that blocks are validated as; the blocks of others are ignored."""

OMITTED_IMAGE = "[An image was omitted: this model accepts text only.]"


def _text_as_blocks(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class TextBlock(LenientModel):
    """A text."""

    type: Literal["text"]
    """The type of the block."""
    text: Text
    """The text. Special tokens spelled in it are not interpreted."""

    @model_validator(mode="before")
    @classmethod
    def _only_text(cls, value: Any) -> Any:
        kind = kind_of(value)
        if kind in UNSUPPORTED:
            reason = f"must not be '{kind}': this model accepts text only"
            raise PydanticCustomError("field", "{reason}", {"field": "type", "reason": reason})
        return value


class OtherBlock(LenientModel):
    """A content block of another type, which the model does not see."""

    type: Annotated[Kind, Field(json_schema_extra=none_of(*TAGS))]
    """The type of the block."""


class ThinkingBlock(LenientModel):
    """The model's thinking in an earlier message."""

    type: Literal["thinking"]
    """The type of the block."""
    thinking: Text
    """The text of the thinking. The chat template decides whether to keep it."""
    signature: Annotated[Text, Field(max_length=MAX_RECORD)] | None = None
    """The signature, as in the response."""


class RedactedThinkingBlock(LenientModel):
    """The model's thinking in an earlier message, hidden from the client."""

    type: Literal["redacted_thinking"]
    """The type of the block."""
    data: Annotated[Text, Field(max_length=MAX_RECORD)]
    """The hidden thinking, as in the response."""


class ToolUseBlock(LenientModel):
    """A tool call of an earlier message."""

    type: Literal["tool_use"]
    """The type of the block."""
    id: Annotated[Text, Field(max_length=MAX_ID)]
    """The ID of the tool call, as in the response."""
    name: Annotated[Text, Field(max_length=MAX_NAME)]
    """The name of the tool."""
    input: dict[str, Any]
    """The arguments."""


class ImageResult(LenientModel):
    """An image in a tool's result, in place of which the model sees a note."""

    type: Literal["image"]
    """The type of the block."""


RESULT_TAGS = ("text", "image")


class OtherResult(LenientModel):
    """A content block of another type in a tool's result, which the model does not see."""

    type: Annotated[Kind, Field(json_schema_extra=none_of(*RESULT_TAGS))]
    """The type of the block."""


def _result_tag(value: Any) -> str:
    kind = kind_of(value)
    return kind if kind in RESULT_TAGS else "other"


ResultBlock = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ImageResult, Tag("image")]
    | Annotated[OtherResult, Tag("other")],
    Discriminator(_result_tag),
]
ResultBlocks = Annotated[tuple[ResultBlock, ...], Field(max_length=MAX_PARTS, fail_fast=True)]


class ToolResultBlock(LenientModel):
    """The result of a tool call."""

    type: Literal["tool_result"]
    """The type of the block."""
    tool_use_id: Annotated[Text, Field(max_length=MAX_ID)]
    """The ID of the tool call."""
    content: Annotated[
        ResultBlocks,
        BeforeValidator(_text_as_blocks, json_schema_input_type=Text | ResultBlocks),
    ] = ()
    """The result: a string, or content blocks."""
    is_error: Flag | None = None
    """Whether the tool failed."""

    @property
    def texts(self) -> list[str]:
        """The texts that the model sees."""
        texts = [_text_of(block) for block in self.content]
        return [text for text in texts if text is not None]


def _text_of(block: "TextBlock | ImageResult | OtherResult") -> str | None:
    match block:
        case TextBlock():
            return block.text
        case ImageResult():
            return OMITTED_IMAGE
        case _:
            return None


def _block_tag(value: Any) -> str:
    kind = kind_of(value)
    return TAGS.get(kind or "", "other")


Block = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ThinkingBlock, Tag("thinking")]
    | Annotated[RedactedThinkingBlock, Tag("redacted_thinking")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")]
    | Annotated[OtherBlock, Tag("other")],
    Discriminator(_block_tag),
]
Blocks = Annotated[tuple[Block, ...], Field(max_length=MAX_PARTS, fail_fast=True)]
Content = Annotated[Blocks, BeforeValidator(_text_as_blocks, json_schema_input_type=Text | Blocks)]
TextContent = Annotated[tuple[TextBlock, ...], Field(max_length=MAX_PARTS, fail_fast=True)]
TextBlocks = Annotated[
    TextContent, BeforeValidator(_text_as_blocks, json_schema_input_type=Text | TextContent)
]
