"""What a completions server offers, found out before it is trusted with budgets."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from proctor.budget import Markers, Vocabulary
from proctor.server.engines.base import Codec
from proctor.server.engines.completions.dialects import Dialect, TextDialect, TokenIdDialect
from proctor.server.engines.completions.upstream import Upstream, UpstreamModel
from proctor.server.engines.tool_calls import ToolFormat
from proctor.server.errors import EngineUnavailable

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
CERTAIN = 100
"""`logit_bias` of a token that is to be sampled."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """What must be known here of a model that is served elsewhere.

    Attributes:
        codec: its tokenizer and template.
        markers: what opens and closes its thinking.
        end_text: the end marker as text.
        vocabulary: what its tokens' text tells a budget.
        defaults: its own sampling settings, by the names of vLLM's parameters.
        tools: how it writes tool calls, if that is known.
    """

    codec: Codec
    markers: Markers
    end_text: str
    vocabulary: Vocabulary
    defaults: Mapping[str, Any]
    tools: ToolFormat | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """What a completions server was found to offer.

    Attributes:
        model: the model's name there.
        context_length: most tokens of prompt and completion together.
        dialect: how to talk to it.
    """

    model: str
    context_length: int
    dialect: Dialect


async def discover(
    upstream: Upstream, local: LocalModel, known_as: Collection[str], context_length: int | None
) -> Service:
    """Ask a server what it has, as soon as it is up, and try it out.

    Args:
        upstream: the server.
        local: the model that it should have.
        known_as: what the server may call it, if it has several.
        context_length: of the model there, for servers that do not say.

    Raises:
        ValueError: if it does not have the model, or budgets cannot be kept there.
        Refused: if it does not let us in.
    """
    listed = _choose(await _listed(upstream), known_as)
    there = listed.max_model_len
    length = context_length or there
    if length is None:
        raise ValueError(
            "the completions server does not say how long its context is: set engine.max_model_len"
        )
    if there is not None and length > there:
        raise ValueError(f"engine.max_model_len is {length}, but the server's context is {there}")
    return Service(listed.id, length, await _probe(upstream, listed.id, local))


async def _listed(upstream: Upstream) -> list[UpstreamModel]:
    waiting = False
    while True:
        try:
            return await upstream.models()
        except EngineUnavailable as error:
            if not waiting:
                logger.warning("waiting: %s", error)
            waiting = True
        await asyncio.sleep(RETRY_SECONDS)


def _choose(listed: Sequence[UpstreamModel], known_as: Collection[str]) -> UpstreamModel:
    for model in listed:
        if model.id in known_as or len(listed) == 1:
            return model
    there = ", ".join(model.id for model in listed) or "none"
    raise ValueError(
        f"the completions server has these models: {there}; set served_model_name to one of them"
    )


async def _probe(upstream: Upstream, model: str, local: LocalModel) -> Dialect:
    """Have the server sample the end marker's first token, and see what comes back.

    This shows all that budgets depend on: that token ids are taken as a prompt
    and mean the same there, that `max_tokens` and `logit_bias` are honoured,
    and that the end of the thinking can be seen at all.
    """
    first = local.markers.end[0]
    body = {
        "model": model,
        "prompt": local.markers.start,
        "stream": True,
        "max_tokens": 1,
        "temperature": 0,
        "logit_bias": {str(first): CERTAIN},
        "return_token_ids": True,
        "skip_special_tokens": False,
    }
    ids: list[int] = []
    text = ""
    async with aclosing(upstream.complete(body)) as pieces:
        async for piece in pieces:
            ids += piece.token_ids or []
            text += piece.text
            if len(ids) > 1 or len(text) > len(local.end_text):
                break
    if local.end_text.startswith(text):
        if ids == [first]:
            return TokenIdDialect(local.markers)
        if text and not ids:
            return TextDialect(local.end_text, local.codec.encode)
    raise ValueError(
        f"budgets cannot be kept over this completions server: made to sample the token {first} "
        f"of '{local.end_text}' once, it gave the ids {ids[:8]} and the text '{text[:80]}'"
    )
