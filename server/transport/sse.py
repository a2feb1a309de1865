"""Server-sent events."""

import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import orjson

DONE = b"data: [DONE]\n\n"
COMMENT = b": thinking\n\n"
"""A comment, which clients ignore; it keeps an idle connection open."""

DATA = b"data: "
NAME = re.compile(rb"^event: .*\n", re.MULTILINE)
PLACEHOLDER = "\N{OBJECT REPLACEMENT CHARACTER}"
"""The placeholder for the text of a chunk in an `SseTemplate`."""


class LastEvents(bytes):
    """The events that end a complete stream."""


class ErrorEvent(bytes):
    """The event that ends a stream after an error."""


def event(data: Any, *, name: str | None = None) -> bytes:
    """Encode an event, with its data as JSON."""
    prefix = b"event: " + name.encode() + b"\n" if name else b""
    return prefix + b"data: " + orjson.dumps(data) + b"\n\n"


def data_of(events: bytes) -> Iterator[Any]:
    """Yield the data of encoded events that have one line of JSON each."""
    for line in events.split(b"\n"):
        if line.startswith(DATA):
            yield orjson.loads(line.removeprefix(DATA))


async def without_names(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield the events without their names, for clients that accept `data:` lines only."""
    async with aclosing(events):
        async for each in events:
            yield type(each)(NAME.sub(b"", each))


class SseTemplate:
    """An encoder of events that differ in one text only; the constant parts are encoded once."""

    def __init__(self, chunk: Any, *, name: str) -> None:
        """Encode the constant parts.

        Args:
            chunk: the data of the events, with `PLACEHOLDER` in each place of the text.
            name: the name of the events.
        """
        self._parts = event(chunk, name=name).split(orjson.dumps(PLACEHOLDER))

    def fill(self, text: str) -> bytes:
        """Return the event with this text."""
        return orjson.dumps(text).join(self._parts)
