"""From a request's messages to the prompt."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from server.engines.base import Codec, Engine, Prompt
from server.errors import BadRequest, ContextTooLong
from server.forms import Tool
from server.messages import Message

MAX_TOKEN_LENGTH = 64
"""More bytes to a token than any real text has; beyond it none is worth tokenizing."""


class Conversation(Protocol):
    """A request that has one."""

    @property
    def messages(self) -> Sequence[Message]:
        """The oldest first."""

    @property
    def tools(self) -> Sequence[Tool] | None:
        """What the model may call."""


def check_length(request: Conversation, context: int) -> None:
    """See that the messages are not so long that the context cannot hold them.

    Raises:
        ContextTooLong: if they are.
    """
    texts = [message.to_plain() for message in request.messages]
    tools = [tool.to_plain() for tool in request.tools or ()]
    _check_size(orjson.dumps([texts, tools]), context, "messages")


def check_prompt(prompt: str, context: int) -> None:
    """See that a prompt is not so long that the context cannot hold it.

    Raises:
        ContextTooLong: if it is.
    """
    _check_size(prompt.encode(), context, "prompt")


def _check_size(text: bytes, context: int, param: str) -> None:
    if len(text) > context * MAX_TOKEN_LENGTH:
        raise ContextTooLong(
            f"'{param}' is far longer than the context of {context} tokens: send less", param=param
        )


async def spent_before(messages: Sequence[Message], codec: Codec) -> int:
    """Thinking tokens that the assistant has spent on this turn in earlier requests.

    A turn begins with a user's message. What is thought in it between tool calls
    comes back with the messages, as far as the client sends it.
    """
    since = 0
    for at, message in enumerate(messages):
        if message.role == "user":
            since = at
    thoughts = [message.thought for message in messages[since:] if message.thought]
    if not thoughts:
        return 0
    return await asyncio.to_thread(lambda: sum(len(codec.encode(text)) for text in thoughts))


async def render(
    request: Conversation, engine: Engine, *, thinking: bool, answering: bool = True
) -> Prompt:
    """The prompt that a request's messages and tools make; see `Codec.render`.

    Raises:
        BadRequest: if the model's template refuses them.
    """
    messages: list[dict[str, Any]] = [message.to_plain() for message in request.messages]
    tools = [tool.to_plain() for tool in request.tools or ()]
    try:
        return await engine.codec.render(
            messages, thinking=thinking, tools=tools, answering=answering
        )
    except ValueError as error:
        raise BadRequest(
            f"the model's chat template refuses these messages: {error}", param="messages"
        ) from error
