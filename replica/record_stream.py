"""Adds the record of a choice to a stream of vLLM's server-sent events."""

from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any, Protocol

import orjson

from proctor.budget import EngineRecord, TokenBudget

FIELD = "proctor"
"""The field of an event that has the record."""

DATA = "data: "
END = "\n\n"


class ReadRecord(Protocol):
    """Returns what is recorded of a choice so far."""

    async def __call__(self, *, is_over: bool) -> EngineRecord:
        """Return the record; `is_over` tells that it can be removed."""


async def with_record(
    events: AsyncIterable[str | bytes],
    budget: TokenBudget,
    read: ReadRecord,
) -> AsyncGenerator[str | bytes, None]:
    """Yield the events, some of them with a field `proctor`, the wire form of an `EngineRecord`.

    The attempts are complete up to each event: they are added wherever a token may have replaced an
    attempt, and to the last event of the choice. Moves of the maximum are in the response to the
    order, too. A gateway that loses the replica at any event can
    therefore resume the request elsewhere, and one that stops early misses nothing. The record may
    also have tokens that the engine has sampled and not sent yet.

    Args:
        events: the events of one choice, one per item.
        budget: the budget of the choice.
        read: returns what is recorded of the choice so far.
    """
    replacements = {ids[0] for ids in budget.continuation_ids}
    async for event in events:
        text = event if isinstance(event, str) else event.decode()
        chunk = _parse(text)
        is_over = chunk is not None and _is_over(chunk)
        if chunk is not None and (is_over or _has_any(chunk, replacements)):
            chunk[FIELD] = (await read(is_over=is_over)).to_wire()
            yield f"{DATA}{orjson.dumps(chunk).decode()}{END}"
        else:
            yield event


def _parse(event: str) -> dict[str, Any] | None:
    """Return the chunk of an event, or None if it has none, as a comment or the end."""
    if not event.startswith(DATA + "{"):
        return None
    chunk: dict[str, Any] = orjson.loads(event[len(DATA) :])
    return chunk if "choices" in chunk else None


def _has_any(chunk: dict[str, Any], tokens: set[int]) -> bool:
    return any(not tokens.isdisjoint(choice.get("token_ids") or ()) for choice in chunk["choices"])


def _is_over(chunk: dict[str, Any]) -> bool:
    return any(choice.get("finish_reason") for choice in chunk["choices"])
