"""Server-sent events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson

DONE = b"data: [DONE]\n\n"
NAME = b"event: "
PLACEHOLDER = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands where a chunk's text goes."""


class ErrorEvent(bytes):
    """The event that ends a stream whose answer broke off."""


def event(data: Any, *, name: str | None = None) -> bytes:
    """A server-sent event."""
    named = NAME + name.encode() + b"\n" if name else b""
    return named + b"data: " + orjson.dumps(data) + b"\n\n"


async def without_names(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same events, each of its data alone: some clients take no other lines."""
    async with aclosing(events):
        async for each in events:
            yield type(each)(each.partition(b"\n")[2]) if each.startswith(NAME) else each


class SseTemplate:
    """Writes events that differ in a text alone; what is constant in them is encoded once."""

    def __init__(self, chunk: Any, *, name: str) -> None:
        """Take a chunk that has a `PLACEHOLDER` for each place of the text."""
        self._parts = event(chunk, name=name).split(orjson.dumps(PLACEHOLDER))

    def fill(self, text: str) -> bytes:
        """The event of this text."""
        return orjson.dumps(text).join(self._parts)
