"""Adds the record of attempts to a stream of vLLM's server-sent events."""

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import Any

import orjson

from proctor.budget import TokenBudget

FIELD = "proctor"
"""The field of an event that has the record."""

DATA = "data: "
END = "\n\n"


async def with_attempts(
    events: AsyncIterable[str | bytes],
    budget: TokenBudget,
    take: Callable[[], Awaitable[frozenset[int]]],
) -> AsyncGenerator[str | bytes, None]:
    """Yield the events, with `{"proctor": {"attempts": [...]}}` added to some of them.

    The record is complete up to each event: it is added wherever a token may have replaced an
    attempt, and to the last event of the choice. A gateway that loses the replica at any event can
    therefore resume the request elsewhere, and one that stops early misses nothing. The record may
    also have tokens that the engine has sampled and not sent yet.

    Args:
        events: the events of one choice, one per item.
        budget: the budget of the choice.
        take: returns the positions of the tokens so far that replaced an attempt.
    """
    replacements = {ids[0] for ids in budget.continuation_ids}
    async for event in events:
        text = event if isinstance(event, str) else event.decode()
        chunk = _parse(text)
        if chunk is not None and _may_change(chunk, replacements):
            chunk[FIELD] = {"attempts": sorted(await take())}
            yield f"{DATA}{orjson.dumps(chunk).decode()}{END}"
        else:
            yield event


def _parse(event: str) -> dict[str, Any] | None:
    """Return the chunk of an event, or None if it has none, as a comment or the end."""
    if not event.startswith(DATA + "{"):
        return None
    chunk: dict[str, Any] = orjson.loads(event[len(DATA) :])
    return chunk


def _may_change(chunk: dict[str, Any], replacements: set[int]) -> bool:
    """Return whether the record may have changed with this chunk, or the choice ends with it."""
    return any(
        choice.get("finish_reason") or not replacements.isdisjoint(choice.get("token_ids") or ())
        for choice in chunk.get("choices") or ()
    )
