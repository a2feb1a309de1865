"""The tokenizer: vLLM's `/tokenize`, `/detokenize`, `/tokenizer_info`, Anthropic's token counts."""

import asyncio

from fastapi import Request, Response

from proctor.server.admission.model_names import check_model
from proctor.server.admission.prompt import (
    Conversation,
    check_ids,
    check_length,
    check_prompt,
    check_tools,
    render,
)
from proctor.server.api.bodies import BodyReader
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine
from proctor.server.engines.served_models import ServedModels
from proctor.server.schemas.anthropic.request import CountTokensRequest
from proctor.server.schemas.anthropic.response import TokenCount
from proctor.server.schemas.anthropic.translation import to_prompt
from proctor.server.schemas.parsing import parse
from proctor.server.schemas.responses import Detokenized, Tokenized, as_json
from proctor.server.schemas.tokenization import DetokenizeRequest, TokenizeRequest

MAX_CONCURRENT = 2
"""The maximum number of concurrent tokenizations, as long ones take CPU time from generation."""


class TokenizeEndpoint:
    """The endpoints of the tokenizer."""

    def __init__(self, settings: Settings, models: ServedModels, body_reader: BodyReader) -> None:
        self._settings = settings
        self._models = models
        self._body_reader = body_reader
        self._semaphore = asyncio.Semaphore(MAX_CONCURRENT)

    async def tokenize(self, request: Request) -> Response:
        """Convert a prompt or messages to token ids.

        Raises:
            ApiError: if the request is rejected.
        """
        body = parse(await self._body_reader.read(request), TokenizeRequest)
        engine = self._engine(body.model)
        async with self._semaphore:
            ids = await _encode(body, engine)
            strings = None
            if body.return_token_strs:
                strings = await asyncio.to_thread(engine.codec.convert_ids_to_tokens, ids)
        context = engine.model.context_length
        return as_json(
            Tokenized(count=len(ids), max_model_len=context, tokens=ids, token_strs=strings),
            body.ignored_header(),
        )

    async def count_tokens(self, request: Request) -> Response:
        """Count the tokens of the prompt of a Messages API request.

        Raises:
            ApiError: if the request is rejected.
        """
        body = parse(await self._body_reader.read(request), CountTokensRequest)
        engine = self._engine(body.model)
        async with self._semaphore:
            ids = await _encode_chat(to_prompt(body), engine, thinking=body.thinks)
        return as_json(TokenCount(input_tokens=len(ids)), body.ignored_header())

    async def detokenize(self, request: Request) -> Response:
        """Convert token ids to text.

        Raises:
            ApiError: if the request is rejected.
        """
        body = parse(await self._body_reader.read(request), DetokenizeRequest)
        codec = self._engine(body.model).codec
        check_ids(body.tokens, codec, "tokens")
        async with self._semaphore:
            text = await asyncio.to_thread(codec.decode, body.tokens)
        return as_json(Detokenized(prompt=text))

    async def info(self) -> Response:
        """Return the configuration of the default model's tokenizer."""
        return as_json(self._models.default.engine.codec.info())

    def _engine(self, name: str | None) -> Engine:
        engine = self._models.find(name).engine
        if name is not None:
            check_model(name, engine.model, self._settings, param="model")
        return engine


async def _encode(request: TokenizeRequest, engine: Engine) -> list[int]:
    if request.prompt is None:
        generates = request.add_generation_prompt is not False
        return await _encode_chat(
            request, engine, thinking=request.thinking, add_generation_prompt=generates
        )
    check_prompt(request.prompt, engine.model.context_length)
    return await asyncio.to_thread(
        engine.codec.encode,
        request.prompt,
        add_special_tokens=request.add_special_tokens is not False,
    )


async def _encode_chat(
    conversation: Conversation,
    engine: Engine,
    *,
    thinking: bool,
    add_generation_prompt: bool = True,
) -> list[int]:
    check_length(conversation, engine.model.context_length)
    if conversation.tools:
        await check_tools(engine.codec)
    prompt = await render(
        conversation, engine, thinking=thinking, add_generation_prompt=add_generation_prompt
    )
    return [*prompt.ids]
