"""`POST /tokenize` and `POST /detokenize`: between text and token ids, in vLLM's shape."""

import asyncio

from fastapi import Request, Response

from proctor.server.admission.model_names import check_model
from proctor.server.admission.prompt import (
    check_ids,
    check_length,
    check_prompt,
    check_tools,
    render,
)
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine
from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.schemas.parsing import parse
from proctor.server.schemas.responses import Detokenized, Tokenized, as_json
from proctor.server.schemas.tokenization import DetokenizeRequest, TokenizeRequest
from proctor.server.transport.bodies import BodyReader

AT_ONCE = 2
"""Requests that are worked on; a long one keeps a core busy that answers need too."""


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
