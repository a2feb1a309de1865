"""From a request's messages to the prompt."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from budget import Markers, ends_inside
from server.engines.base import Codec, Engine, Prompt
from server.errors import BadRequest, ContextTooLong
from server.forms import Tool
from server.messages import Message
from server.prompts import CompletionRequest

TAIL = 32
"""Tokens at a prompt's end among which a start marker is looked for as text."""

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


def check_ids(ids: Sequence[int], codec: Codec, param: str) -> None:
    """See that the model has these tokens.

    Raises:
        BadRequest: if it has not.
    """
    size = codec.vocabulary_size
    if max(ids, default=0) >= size:
        at = next(at for at, token in enumerate(ids) if token >= size)
        raise BadRequest(
            f"'{param}[{at}]' is {ids[at]}, but the model's vocabulary ends at {size - 1}",
            param=f"{param}[{at}]",
        )


def check_room(ids: Sequence[int], context: int, param: str) -> int:
    """The tokens that the context has left beside these.

    Raises:
        ContextTooLong: if there are none.
    """
    if len(ids) >= context:
        what = f"the answer included, and '{param}' makes {len(ids)}: send less"
        raise ContextTooLong(context, what, param=param)
    return context - len(ids)


def _check_size(text: bytes, context: int, param: str) -> None:
    if len(text) > context * MAX_TOKEN_LENGTH:
        raise ContextTooLong(context, f"and '{param}' is far longer: send less", param=param)


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


async def read_prompt(request: CompletionRequest, engine: Engine) -> Prompt:
    """The prompt that a client has written itself.

    Raises:
        BadRequest: if it is empty, too long, or of tokens that the model does not have.
    """
    context, codec = engine.model.context_length, engine.codec
    if isinstance(request.prompt, str):
        check_prompt(request.prompt, context)
        special = request.add_special_tokens is not False
        ids = await asyncio.to_thread(codec.encode, request.prompt, add_special_tokens=special)
    else:
        ids = request.prompt
        check_ids(ids, codec, "prompt")
    if not ids:
        raise BadRequest("'prompt' is empty: there is nothing to go on from", param="prompt")
    check_room(ids, context, "prompt")
    return Prompt(tuple(ids), _is_open(ids, codec, engine.model.markers))


def _is_open(ids: Sequence[int], codec: Codec, markers: Markers) -> bool:
    """Whether these tokens end inside a thinking block.

    Where a marker is text of several tokens, its last one can have grown together
    with the line's end after it.
    """
    tail = codec.decode(ids[-TAIL:]).rstrip()
    return ends_inside(ids, markers) or tail.endswith(codec.decode(markers.start))


async def check_tools(codec: Codec) -> None:
    """See that the model is told of tools.

    Raises:
        BadRequest: if its chat template passes over them.
    """
    if not await codec.renders_tools():
        raise BadRequest(
            "this model's chat template does not tell the model of tools: leave 'tools' out",
            param="tools",
        )


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
