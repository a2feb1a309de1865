"""From a request's messages to the prompt."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from proctor.budget import matcher_of
from proctor.server.engines.base import Codec, Engine, Prompt
from proctor.server.errors import BadRequest, ContextTooLong
from proctor.server.schemas.messages import Message
from proctor.server.schemas.tools import Tool

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


def check_prompt(prompt: str, context: int, param: str = "prompt") -> None:
    """See that a prompt is not so long that the context cannot hold it.

    Raises:
        ContextTooLong: if it is.
    """
    _check_size(prompt.encode(), context, param)


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


async def read_prompt(
    written: str | list[int], param: str, engine: Engine, *, special: bool
) -> Prompt:
    """A prompt that a client has written itself.

    Args:
        written: its text, or its token ids.
        param: the path of the field that it is.
        engine: whose tokens they are.
        special: whether to add the tokens that begin or end a text.

    Raises:
        BadRequest: if it is empty, too long, or of tokens that the model does not have.
    """
    context, codec = engine.model.context_length, engine.codec
    if isinstance(written, str):
        check_prompt(written, context, param)
        ids = await asyncio.to_thread(codec.encode, written, add_special_tokens=special)
    else:
        ids = written
        check_ids(ids, codec, param)
    if not ids:
        raise BadRequest(f"'{param}' is empty: there is nothing to go on from", param=param)
    check_room(ids, context, param)
    matcher = matcher_of(engine.model.markers, engine.model.vocabulary)
    # A prompt can have a million tokens: other requests' streams must not wait for it.
    opened = await asyncio.to_thread(matcher.inside_after, ids)
    return Prompt(tuple(ids), opened)


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
    request: Conversation,
    engine: Engine,
    *,
    thinking: bool,
    answering: bool = True,
    continuing: bool = False,
) -> Prompt:
    """The prompt that a request's messages and tools make; see `Codec.render`.

    Raises:
        BadRequest: if the model's template refuses them.
    """
    messages: list[dict[str, Any]] = [message.to_plain() for message in request.messages]
    tools = [tool.to_plain() for tool in request.tools or ()]
    try:
        return await engine.codec.render(
            messages, thinking=thinking, tools=tools, answering=answering, continuing=continuing
        )
    except ValueError as error:
        raise BadRequest(
            f"the model's chat template refuses these messages: {error}", param="messages"
        ) from error
