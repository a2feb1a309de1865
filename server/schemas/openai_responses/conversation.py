"""Translates the items of a conversation to messages."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from proctor.server.schemas.messages import FunctionCall, Message, PriorThinking, TextPart, ToolCall
from proctor.server.schemas.openai_responses.content import Part
from proctor.server.schemas.openai_responses.items import (
    CallOutputItem,
    CustomCallItem,
    FunctionCallItem,
    Item,
    MessageItem,
    ReasoningItem,
    ShellCallItem,
    ShellOutputItem,
)
from proctor.server.schemas.openai_responses.progress import is_progress
from proctor.server.schemas.openai_responses.tool_names import INPUT, SHELL, flat_name

Role = Literal["system", "user", "assistant", "tool"]
ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


@dataclass(slots=True)
class Draft:
    """A message, while items are added to it."""

    role: Role
    texts: list[str] = field(default_factory=list)
    thinking: list[PriorThinking] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    call_id: str | None = None

    def to_message(self) -> Message:
        """Return the message."""
        parts = tuple(TextPart.model_construct(type="text", text=text) for text in self.texts)
        thought = "\n".join(each.text for each in self.thinking if each.text)
        return Message.model_construct(
            role=self.role,
            content=parts,
            reasoning_content=thought or None,
            tool_calls=self.calls or None,
            tool_call_id=self.call_id,
        )


def to_messages(
    instructions: str | None, items: Iterable[Item]
) -> tuple[list[Message], dict[int, tuple[PriorThinking, ...]]]:
    """Return the messages of a conversation, and their thinking blocks by index.

    The instructions are the first message. Consecutive items of one role are one message, so that
    the thinking, the text and the calls of a response are together, and chat templates that demand
    one system prompt, or alternating roles, accept the conversation.

    Args:
        instructions: the system prompt, if there is one.
        items: the items of the conversation; those that the model does not see are skipped.
    """
    drafts: list[Draft] = []
    if instructions:
        drafts.append(Draft("system", [instructions]))
    for item in items:
        part = _draft(item)
        if part is None:
            continue
        if drafts and drafts[-1].role == part.role != "tool":
            drafts[-1].texts += part.texts
            drafts[-1].thinking += part.thinking
            drafts[-1].calls += part.calls
        else:
            drafts.append(part)
    blocks = {index: tuple(each.thinking) for index, each in enumerate(drafts) if each.thinking}
    return [each.to_message() for each in drafts], blocks


def _draft(item: Item) -> Draft | None:
    """Return the message of an item, or None if the model does not see it."""
    match item:
        case MessageItem():
            return Draft(ROLES[item.role], _texts(item.content))
        case ReasoningItem():
            return Draft("assistant", thinking=[_thinking(item)])
        case FunctionCallItem():
            name = flat_name(item.name, item.namespace)
            return Draft("assistant", calls=[_call(item.call_id, name, item.arguments)])
        case CustomCallItem():
            name = flat_name(item.name, item.namespace)
            arguments = orjson.dumps({INPUT: item.input}).decode()
            return Draft("assistant", calls=[_call(item.call_id, name, arguments)])
        case ShellCallItem():
            arguments = orjson.dumps(item.action).decode()
            return Draft("assistant", calls=[_call(item.call_id, SHELL, arguments)])
        case CallOutputItem():
            return Draft("tool", _texts(item.output), call_id=item.call_id)
        case ShellOutputItem():
            return Draft("tool", _texts(item.output), call_id=item.id)
        case _:
            return None


def _texts(parts: Sequence[Part]) -> list[str]:
    return [part.text for part in parts if part.text]


def _thinking(item: ReasoningItem) -> PriorThinking:
    """Return the thinking of an earlier response, whose text is in one of two places."""
    text = "\n".join(_texts(item.content or ()))
    if not text:
        summary = "\n".join(_texts(item.summary))
        text = "" if is_progress(summary) else summary
    return PriorThinking(text, item.encrypted_content)


def _call(call_id: str, name: str, arguments: str) -> ToolCall:
    function: Any = FunctionCall.model_construct(name=name, arguments=arguments)
    return ToolCall.model_construct(id=call_id, type="function", function=function)
