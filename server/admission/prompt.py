"""Renders a request's messages to a prompt, and checks prompts that clients write themselves."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import orjson

from proctor.budget import matcher_of
from proctor.server.engines.base import Codec, Engine, Prompt
from proctor.server.errors import BadRequest, ContextTooLong
from proctor.server.schemas.messages import Message
from proctor.server.schemas.tools import Tool

MAX_TOKEN_LENGTH = 64
"""Bytes per token, more than any real text has. Longer input is rejected before tokenization."""


class Conversation(Protocol):
    """A request with messages and tools."""

    @property
    def messages(self) -> Sequence[Message]:
        """The messages, the oldest first."""

    @property
    def tools(self) -> Sequence[Tool] | None:
        """The tools that the model may call."""


def check_length(request: Conversation, context: int) -> None:
    """Check cheaply, without tokenization, that the context can hold messages and tools.

    Raises:
        ContextTooLong: if it cannot.
    """
    texts = [message.to_plain() for message in request.messages]
    tools = [tool.to_plain() for tool in request.tools or ()]
    _check_size(orjson.dumps([texts, tools]), context, "messages")


def check_prompt(prompt: str, context: int, param: str = "prompt") -> None:
    """Check cheaply, without tokenization, that the context can hold a prompt.

    Raises:
        ContextTooLong: if it cannot.
    """
    _check_size(prompt.encode(), context, param)


def check_ids(ids: Sequence[int], codec: Codec, param: str) -> None:
    """Check that token ids are within the model's vocabulary.

    Raises:
        BadRequest: if one is not.
    """
    size = codec.vocabulary_size
    if max(ids, default=0) >= size:
        index = next(index for index, token in enumerate(ids) if token >= size)
        raise BadRequest(
            f"'{param}[{index}]' is {ids[index]}, but the model's largest token id is {size - 1}",
            param=f"{param}[{index}]",
        )


def check_room(ids: Sequence[int], context: int, param: str) -> int:
    """Return how many tokens the context has left after a prompt.

    Raises:
        ContextTooLong: if it has none left.
    """
    if len(ids) >= context:
        what = f"including the answer, but '{param}' has {len(ids)}: send less"
        raise ContextTooLong(context, what, param=param, prompt_tokens=len(ids))
    return context - len(ids)


def _check_size(text: bytes, context: int, param: str) -> None:
    if len(text) > context * MAX_TOKEN_LENGTH:
        what = f"but '{param}' is much longer: send less"
        tokens = -(-len(text) // MAX_TOKEN_LENGTH)
        raise ContextTooLong(context, what, param=param, prompt_tokens=tokens)


async def read_prompt(
    prompt: str | list[int], param: str, engine: Engine, *, add_special_tokens: bool
) -> Prompt:
    """Check and tokenize a prompt that a client has written itself.

    Args:
        prompt: its text or token ids.
        param: the path of the request's field with the prompt.
        engine: the engine that it is for.
        add_special_tokens: whether to add the tokens that begin or end a sequence.

    Raises:
        BadRequest: if it is empty, too long, or has token ids outside the vocabulary.
    """
    context, codec = engine.model.context_length, engine.codec
    if isinstance(prompt, str):
        check_prompt(prompt, context, param)
        ids = await asyncio.to_thread(codec.encode, prompt, add_special_tokens=add_special_tokens)
    else:
        ids = prompt
        check_ids(ids, codec, param)
    if not ids:
        raise BadRequest(f"'{param}' must have at least one token", param=param)
    check_room(ids, context, param)
    matcher = matcher_of(engine.model.markers, engine.model.vocabulary)
    # In a thread: a prompt can have a million tokens, and must not block other streams.
    opened = await asyncio.to_thread(matcher.inside_after, ids)
    return Prompt(tuple(ids), opened)


async def check_tools(codec: Codec) -> None:
    """Check that the chat template renders tools.

    Raises:
        BadRequest: if it ignores them.
    """
    if not await codec.renders_tools():
        raise BadRequest(
            "'tools' is not supported by this model's chat template: leave it out", param="tools"
        )


async def render(
    request: Conversation,
    engine: Engine,
    *,
    thinking: bool,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
) -> Prompt:
    """Render a request's messages and tools; see `Codec.render`.

    Some templates only accept a system message at the beginning, but agents send more of them
    later. There the text of these becomes part of the messages around them.

    Raises:
        BadRequest: if the chat template rejects them.
    """
    messages: list[dict[str, Any]] = [message.to_plain() for message in request.messages]
    tools = [tool.to_plain() for tool in request.tools or ()]
    render_messages = partial(
        engine.codec.render,
        thinking=thinking,
        tools=tools,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
    )
    try:
        try:
            return await render_messages(messages)
        except ValueError:
            folded = fold_late_system(messages)
            if folded == messages:
                raise
            return await render_messages(folded)
    except ValueError as error:
        raise BadRequest(
            f"the model's chat template rejects 'messages': {error}", param="messages"
        ) from error


def fold_late_system(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return messages whose only system messages are at the beginning.

    The text of a later one follows that of the user's message or of the tool's result before it.
    After an assistant's message, it becomes a user's message, or the beginning of the next one.
    """
    folded: list[dict[str, Any]] = []
    begun = pending = False
    for message in messages:
        late = begun and message["role"] == "system"
        begun = begun or message["role"] != "system"
        previous = folded[-1] if folded else None
        if previous is not None and (
            (late and previous["role"] in ("user", "tool"))
            or (pending and message["role"] == "user")
        ):
            content = f"{previous['content']}\n\n{message['content']}"
            folded[-1] = {**previous, "content": content}
        else:
            folded.append({**message, "role": "user"} if late else {**message})
        pending = late and (previous is None or previous["role"] == "assistant")
    return folded
