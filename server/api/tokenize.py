"""`POST /tokenize` and `POST /detokenize`: between text and token ids, in vLLM's shape."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import Request, Response
from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from proctor.server.config.limits import MAX_NAME
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine
from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.generation.model_names import check_model
from proctor.server.generation.prompt import (
    check_ids,
    check_length,
    check_prompt,
    check_tools,
    render,
)
from proctor.server.schemas.base import Flag, RequestModel, Text
from proctor.server.schemas.completions import TokenIds
from proctor.server.schemas.generation import MAX_MESSAGES, TemplateSwitches
from proctor.server.schemas.messages import Message
from proctor.server.schemas.parsing import parse
from proctor.server.schemas.responses import Detokenized, Tokenized, as_json
from proctor.server.schemas.tools import MAX_TOOLS, Tool
from proctor.server.transport.bodies import BodyReader

AT_ONCE = 2
"""Requests that are worked on; a long one keeps a core busy that answers need too."""

ONE_OF_THEM: dict[str, Any] = {
    "oneOf": [
        {
            "required": ["prompt"],
            "properties": {"prompt": {"type": "string"}, "messages": {"maxItems": 0}},
        },
        {
            "required": ["messages"],
            "properties": {
                "prompt": {"type": "null"},
                "messages": {"minItems": 1},
                "add_special_tokens": {"not": {"const": True}},
            },
        },
    ]
}


class TokenizeRequest(RequestModel):
    """The body of `POST /tokenize`: a prompt, or the messages of a conversation."""

    model_config = ConfigDict(json_schema_extra=ONE_OF_THEM)

    model: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The model's name, as `GET /v1/models` lists it; it may be left out."""
    prompt: Text | None = None
    """A text, in which special tokens may be spelled."""
    messages: Annotated[tuple[Message, ...], Field(max_length=MAX_MESSAGES)] = ()
    """A conversation, instead of a prompt; the chat template makes the prompt."""
    add_special_tokens: Flag | None = None
    """Whether to add the tokens that begin or end a text. By default they are added to a prompt;
    to messages they are not, for that is the template's part."""
    return_token_strs: Flag | None = None
    """Whether to tell the tokens as the vocabulary spells them, too."""
    add_generation_prompt: Flag | None = None
    """Whether to end the messages with the beginning of an answer; it is so by default."""
    continue_final_message: Literal[False] | None = None
    """The last message always ends as the template has it."""
    chat_template_kwargs: TemplateSwitches | None = None
    """Switches of the chat template; only those of the thinking are taken."""
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    """Functions that the model may call, of which the template tells it."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "TokenizeRequest":
        if (self.prompt is None) == (not self.messages):
            reason = "is required, or 'messages' in its place"
            raise PydanticCustomError("field", "{reason}", {"field": "prompt", "reason": reason})
        if self.messages and self.add_special_tokens:
            reason = "cannot be had with 'messages': the chat template adds them"
            raise PydanticCustomError(
                "field", "{reason}", {"field": "add_special_tokens", "reason": reason}
            )
        return self

    @property
    def thinking(self) -> bool:
        """Whether the template is to leave thinking on."""
        switches = self.chat_template_kwargs or TemplateSwitches()
        return False not in (switches.enable_thinking, switches.thinking)


class DetokenizeRequest(RequestModel):
    """The body of `POST /detokenize`."""

    model: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The model's name, as `GET /v1/models` lists it; it may be left out."""
    tokens: TokenIds
    """Ids of tokens in the model's vocabulary."""


class TokenizeEndpoint:
    """The endpoints."""

    def __init__(self, settings: Settings, host: EngineSupervisor, bodies: BodyReader) -> None:
        self._settings = settings
        self._host = host
        self._bodies = bodies
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def tokenize(self, request: Request) -> Response:
        """Turn a prompt or messages into token ids.

        Raises:
            ApiError: if the request is refused.
        """
        asked = parse(await self._bodies.read(request), TokenizeRequest)
        engine = self._engine(asked.model)
        async with self._turns:
            ids = await _ids(asked, engine)
            strings = None
            if asked.return_token_strs:
                strings = await asyncio.to_thread(engine.codec.convert_ids_to_tokens, ids)
        context = engine.model.context_length
        return as_json(
            Tokenized(count=len(ids), max_model_len=context, tokens=ids, token_strs=strings),
            asked.ignored_header(),
        )

    async def detokenize(self, request: Request) -> Response:
        """Turn token ids into text.

        Raises:
            ApiError: if the request is refused.
        """
        asked = parse(await self._bodies.read(request), DetokenizeRequest)
        codec = self._engine(asked.model).codec
        check_ids(asked.tokens, codec, "tokens")
        async with self._turns:
            text = await asyncio.to_thread(codec.decode, asked.tokens)
        return as_json(Detokenized(prompt=text))

    async def info(self) -> Response:
        """Tell what the tokenizer is set to."""
        return as_json(self._host.engine.codec.info())

    def _engine(self, name: str | None) -> Engine:
        engine = self._host.engine
        if name is not None:
            check_model(name, engine.model, self._settings.aliases, param="model")
        return engine


async def _ids(asked: TokenizeRequest, engine: Engine) -> list[int]:
    context = engine.model.context_length
    if asked.prompt is None:
        check_length(asked, context)
        if asked.tools:
            await check_tools(engine.codec)
        prompt = await render(
            asked,
            engine,
            thinking=asked.thinking,
            add_generation_prompt=asked.add_generation_prompt is not False,
        )
        return [*prompt.ids]
    check_prompt(asked.prompt, context)
    return await asyncio.to_thread(
        engine.codec.encode,
        asked.prompt,
        add_special_tokens=asked.add_special_tokens is not False,
    )
