"""Discovers what a completions server supports, and probes whether it can enforce budgets."""

import asyncio
import logging
from collections.abc import Collection
from contextlib import aclosing
from dataclasses import dataclass

from proctor.server.engines.completions.dialects import Dialect, TextDialect, TokenIdDialect
from proctor.server.engines.completions.upstream import Upstream
from proctor.server.engines.listed_model import ListedModel, choose_model, context_length_of
from proctor.server.engines.local_model import LocalModel
from proctor.server.errors import EngineUnavailable

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
FORCING_BIAS = 100
"""The `logit_bias` that forces a token."""


@dataclass(frozen=True, slots=True)
class Service:
    """The capabilities of a completions server.

    Attributes:
        model: the model's name there.
        context_length: maximum number of tokens of prompt and completion together.
        dialect: its dialect of the completions API.
    """

    model: str
    context_length: int
    dialect: Dialect


async def discover(
    upstream: Upstream, local: LocalModel, known_as: Collection[str], context_length: int | None
) -> Service:
    """Wait until a server is up, look its model up and probe it.

    Args:
        upstream: the server.
        local: the model that it should serve.
        known_as: the names that the model may have there, if the server lists several.
        context_length: the model's context there, for servers that do not report it.

    Raises:
        ValueError: if it does not serve the model, or budgets cannot be enforced over it.
        UpstreamError: if it rejects the API key or the request.
    """
    model = choose_model(await _list_models(upstream), known_as)
    length = context_length_of(model, context_length)
    return Service(model.id, length, await _probe(upstream, model.id, local))


async def _list_models(upstream: Upstream) -> list[ListedModel]:
    has_warned = False
    while True:
        try:
            return await upstream.models()
        except EngineUnavailable as error:
            if not has_warned:
                logger.warning("waiting: %s", error)
            has_warned = True
        await asyncio.sleep(RETRY_SECONDS)


async def _probe(upstream: Upstream, model: str, local: LocalModel) -> Dialect:
    """Force the server to sample the first token of the end marker, and check what comes back.

    This checks everything that budgets depend on: that the server accepts token ids as a prompt
    and uses the same vocabulary, that it respects `max_tokens` and `logit_bias`, and that the end
    marker is visible in its output.
    """
    first = local.markers.end[0]
    body = {
        "model": model,
        "prompt": local.markers.start,
        "stream": True,
        "max_tokens": 1,
        "temperature": 0,
        "logit_bias": {str(first): FORCING_BIAS},
        "return_token_ids": True,
        "skip_special_tokens": False,
    }
    ids: list[int] = []
    text = ""
    async with aclosing(upstream.complete(body)) as events:
        async for event in events:
            ids += event.token_ids or []
            text += event.text
            if len(ids) > 1 or len(text) > len(local.end_text):
                break
    if local.end_text.startswith(text):
        if ids == [first]:
            return TokenIdDialect(local.markers)
        if text and not ids:
            return TextDialect(local.end_text, local.codec.encode)
    raise ValueError(
        "budgets cannot be enforced over this completions server: when forced to sample token "
        f"{first} of '{local.end_text}' once, it returned the ids {ids[:8]} and the text "
        f"'{text[:80]}'"
    )
