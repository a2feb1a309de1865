"""The messages of a conversation, as a client may send them."""

from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError, from_json

from proctor.server.config.limits import MAX_NAME
from proctor.server.schemas.base import LenientModel, Text
from proctor.server.schemas.tools import MAX_TOOLS

MAX_PARTS = 256
MAX_ID = 256

OPEN_TAG, CLOSE_TAG = "<think>", "</think>"
"""Around a thinking that stands in a message's content, whatever the model's own markers are."""

OTHER_PARTS = ("image_url", "image", "input_audio", "audio_url", "video_url", "file", "refusal")


def _text_as_parts(value: Any) -> Any:
    if value is None:
        return []
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if isinstance(value, list):
        return value
    raise PydanticCustomError("content", "It should be a string or a list of text parts")


class TextPart(LenientModel):
    """A message's content, or a part of it."""

    type: Literal["text"]
    """The kind of part; text is the only one."""
    text: Text
    """The text itself. Special tokens typed into it stay plain text."""

    @model_validator(mode="before")
    @classmethod
    def _only_text(cls, value: Any) -> Any:
        kind = value.get("type") if isinstance(value, dict) else None
        if kind in OTHER_PARTS:
            reason = f"is '{kind}', and this model takes text alone: send parts of type 'text'"
            raise PydanticCustomError("field", "{reason}", {"field": "type", "reason": reason})
        return value


Parts = Annotated[tuple[TextPart, ...], Field(max_length=MAX_PARTS, fail_fast=True)]


class FunctionCall(LenientModel):
    """A call as the model made it."""

    name: Annotated[Text, Field(max_length=MAX_NAME)]
    """The function's name."""
    arguments: Text
    """Its arguments in JSON."""

    def to_plain(self) -> dict[str, Any]:
        """The call as templates take it, its arguments as an object.

        What is no object becomes an empty one: it stands in the conversation's
        history, where a refusal would end the conversation.
        """
        try:
            arguments = from_json(self.arguments, allow_inf_nan=False)
            orjson.dumps(arguments)
        except (ValueError, TypeError):  # TypeError: a number too large to be written again
            arguments = {}
        return {"name": self.name, "arguments": arguments if isinstance(arguments, dict) else {}}


class ToolCall(LenientModel):
    """A tool call of an earlier turn."""

    id: Annotated[Text, Field(max_length=MAX_ID)]
    """The call's id, as the response had it."""
    type: Literal["function"] = "function"
    """The kind of call."""
    function: FunctionCall
    """What was called."""


NEEDED = frozenset({"audio", "function_call", "refusal"})
"""OpenAI's members of messages that say something to the model, and are not served."""

OF_ITS_ROLE: dict[str, Any] = {
    "allOf": [
        {
            "if": {"properties": {"role": {"const": "assistant"}}},
            "else": {
                "required": ["content"],
                "properties": {"content": {"not": {"type": "null"}}, "tool_calls": {"maxItems": 0}},
            },
        },
        {
            "if": {"properties": {"role": {"const": "tool"}}},
            "else": {"properties": {"tool_call_id": {"maxLength": 0}}},
        },
    ]
}
"""What `_has_content` and `_fields_of_its_role` check, as JSON schema."""


class Message(LenientModel):
    """One message of the conversation."""

    model_config = ConfigDict(json_schema_extra=OF_ITS_ROLE)
    needed: ClassVar[frozenset[str]] = NEEDED

    role: Literal["system", "developer", "user", "assistant", "tool"]
    """Who speaks; `developer` is the same as `system`."""
    content: Annotated[
        Parts, BeforeValidator(_text_as_parts, json_schema_input_type=Text | Parts | None)
    ] = ()
    """What is said: a text, or parts that are joined by newlines. An assistant's can be null."""
    name: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The speaker's name, for templates that show it."""
    reasoning_content: Text | None = None
    """What the assistant thought before this message; the template keeps it or drops it. Of a
    turn that tool calls have broken, it counts against the budget."""
    reasoning: Text | None = None
    """The same as `reasoning_content`, which goes first."""
    thinking: Text | None = None
    """The same."""
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    """The assistant's calls."""
    tool_call_id: Annotated[Text, Field(max_length=MAX_ID)] | None = None
    """The call that a tool's message answers."""

    @model_validator(mode="before")
    @classmethod
    def _has_content(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("role") == "assistant":
            return value
        if value.get("content") is None:
            reason = "is required"
            raise PydanticCustomError("field", "{reason}", {"field": "content", "reason": reason})
        return value

    @model_validator(mode="after")
    def _fields_of_its_role(self) -> "Message":
        allowed = {"tool_calls": "assistant", "tool_call_id": "tool"}
        for name, role in allowed.items():
            if getattr(self, name) and self.role != role:
                reason = f"belongs to messages of the role '{role}'"
                raise PydanticCustomError("field", "{reason}", {"field": name, "reason": reason})
        return self

    @property
    def text(self) -> str:
        """Its content in one piece, without any thinking."""
        return self._parted[1]

    @property
    def thought(self) -> str:
        """Its thinking, in whichever field it came, or in tags at the content's beginning."""
        return self.reasoning_content or self.reasoning or self.thinking or self._parted[0]

    @property
    def _parted(self) -> tuple[str, str]:
        whole = "\n".join(part.text for part in self.content)
        if self.role != "assistant":
            return "", whole
        thoughts, rest = [], whole
        while rest.lstrip().startswith(OPEN_TAG):
            thought, closed, said = rest.lstrip().removeprefix(OPEN_TAG).partition(CLOSE_TAG)
            if not closed:
                break
            thoughts.append(thought.strip("\n"))
            rest = said.lstrip("\n")
        return "\n".join(thoughts), rest

    def unfinished(self) -> "Message":
        """The same, to be gone on with: a thinking that its content only begins stands apart."""
        whole = self.text
        if not whole.startswith(OPEN_TAG):
            return self
        begun = whole.removeprefix(OPEN_TAG).lstrip("\n")
        return self.model_copy(update={"content": (), "reasoning_content": begun})

    def to_plain(self) -> dict[str, Any]:
        """The message as a chat template takes it; a developer is a system."""
        role = "system" if self.role == "developer" else self.role
        plain: dict[str, Any] = {"role": role, "content": self.text}
        if self.name is not None:
            plain["name"] = self.name
        if self.thought:
            plain["reasoning"] = self.thought
        if self.tool_calls:
            plain["tool_calls"] = [
                {"id": call.id, "type": "function", "function": call.function.to_plain()}
                for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            plain["tool_call_id"] = self.tool_call_id
        return plain
