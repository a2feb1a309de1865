"""The request models of the content parts of items."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from proctor.server.schemas.base import MAX_PARTS, Kind, LenientModel, Text, kind_of, none_of

TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
FILES = {
    "input_image": "[An image was omitted: this model accepts text only.]",
    "input_file": "[A file was omitted: this model accepts text only.]",
    "input_audio": "[Audio was omitted: this model accepts text only.]",
}
"""The types of parts that are not text, and what the model sees of those in outputs of tools."""


REFUSAL = "refusal"


def _text_as_parts(value: Any) -> Any:
    return [{"type": "input_text", "text": value}] if isinstance(value, str) else value


class ContentText(LenientModel):
    """A text."""

    type: Literal["input_text", "output_text", "text", "summary_text", "reasoning_text"]
    """The type of the part."""
    text: Text
    """The text. Special tokens spelled in it are not interpreted."""

    @model_validator(mode="before")
    @classmethod
    def _only_text(cls, value: Any) -> Any:
        kind = kind_of(value)
        if kind in FILES:
            reason = f"must not be '{kind}': this model accepts text only"
            raise PydanticCustomError("field", "{reason}", {"field": "type", "reason": reason})
        return value


class RefusalPart(LenientModel):
    """A refusal of an earlier response."""

    type: Literal["refusal"]
    """The type of the part."""
    refusal: Text
    """The text of the refusal."""

    @property
    def text(self) -> str:
        """The text that the model sees."""
        return self.refusal


class FilePart(LenientModel):
    """An image or a file in the output of a tool, in place of which the model sees a note."""

    type: Literal["input_image", "input_file", "input_audio"]
    """The type of the part."""

    @property
    def text(self) -> str:
        """The text that the model sees."""
        return FILES[self.type]


class OtherPart(LenientModel):
    """A content part of another type, which the model does not see."""

    type: Annotated[Kind, Field(json_schema_extra=none_of(*TEXTS, *FILES, REFUSAL))]
    """The type of the part."""

    @property
    def text(self) -> str:
        """The text that the model sees, none."""
        return ""


def _message_tag(value: Any) -> str:
    kind = kind_of(value)
    if kind == REFUSAL:
        return "refusal_part"
    return "text_part" if kind in (*TEXTS, *FILES) else "other_part"


def _output_tag(value: Any) -> str:
    return "file_part" if kind_of(value) in FILES else _message_tag(value)


Part = ContentText | RefusalPart | FilePart | OtherPart
MessagePart = Annotated[
    Annotated[ContentText, Tag("text_part")]
    | Annotated[RefusalPart, Tag("refusal_part")]
    | Annotated[OtherPart, Tag("other_part")],
    Discriminator(_message_tag),
]
OutputPart = Annotated[
    Annotated[ContentText, Tag("text_part")]
    | Annotated[RefusalPart, Tag("refusal_part")]
    | Annotated[FilePart, Tag("file_part")]
    | Annotated[OtherPart, Tag("other_part")],
    Discriminator(_output_tag),
]
MessageParts = Annotated[tuple[MessagePart, ...], Field(max_length=MAX_PARTS, fail_fast=True)]
OutputParts = Annotated[tuple[OutputPart, ...], Field(max_length=MAX_PARTS, fail_fast=True)]
MessageContent = Annotated[
    MessageParts, BeforeValidator(_text_as_parts, json_schema_input_type=Text | MessageParts)
]
ToolOutput = Annotated[
    OutputParts, BeforeValidator(_text_as_parts, json_schema_input_type=Text | OutputParts)
]
