"""Reads requests' bodies, bounded one by one and all together."""

import asyncio
import sys
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Request

from proctor.server.auth.api_key import Key
from proctor.server.errors import SOON, ApiError, BodyTooLarge, RequestTimeout, Unavailable
from proctor.server.fair_queue import FairQueue
from proctor.server.transport.encodings import Identity, decoder

BODY_SECONDS = 60.0
"""For a body to come, the wait for room included."""

SMALL = 64 * 2**10
"""Bytes of a body that need no room."""

FULL_SIZED = 16
"""Bodies of the largest size that there is room for at a time."""

UNDISTURBED_SECONDS = 5.0
"""So long a body keeps its room while others wait for theirs."""


@dataclass(eq=False, slots=True)
class Reading:
    """A body that is being read.

    Attributes:
        owner: whose it is.
        size: bytes that it may come to.
        time: until when it is read.
        waits: whether it waits for room.
        since: when it was given room, by the event loop's clock; None before that.
        hurried: whether it was given less time, because others wait.
    """

    owner: Hashable
    size: int
    time: asyncio.Timeout
    waits: bool = False
    since: float | None = None
    hurried: bool = False

    def hurry(self, now: float) -> None:
        """Have it come within `UNDISTURBED_SECONDS` of when it was given room, or at once."""
        if self.since is None or self.hurried or self.time.expired():
            return
        end, until = max(now, self.since + UNDISTURBED_SECONDS), self.time.when()
        if until is not None and end < until:
            self.hurried = True
            self.time.reschedule(end)

    def late(self) -> ApiError:
        """What to tell a client whose body has not come in time."""
        if self.waits:
            return Unavailable(
                "too many large bodies are being read: try again later", headers=SOON
            )
        if self.hurried:
            return RequestTimeout(
                f"the body did not come within {UNDISTURBED_SECONDS:g} s, and others wait to send "
                "theirs: try again later",
                headers=SOON,
            )
        return RequestTimeout(f"the body did not come within {BODY_SECONDS:g} s")


class BodyReader:
    """Reads bodies into memory that they share.

    A small body is always read. One that grows larger first needs room for all that
    it may become, and never waits again once it has that. It waits by turns of those
    who send, and what it brings next stays with its client meanwhile. While others
    wait, whoever has had room for the longest must be done soon.
    """

    def __init__(self, at_most: int) -> None:
        """Begin with none.

        Args:
            at_most: bytes of one body, compressed or not.
        """
        self._at_most = at_most
        self._room = FairQueue(FULL_SIZED * at_most, sys.maxsize)
        self._with_room: dict[Reading, None] = {}

    async def read(self, request: Request) -> bytes:
        """The whole body, decompressed and counted while it comes.

        Raises:
            BadRequest: if it cannot be decompressed.
            UnsupportedEncoding: if it is compressed in a way that is not known.
            BodyTooLarge: if it is over the limit, compressed or not.
            RequestTimeout: if it is not whole in time.
            Unavailable: if there was no room for it in time.
            ClientDisconnect: if the client went away.
        """
        at_most = self._at_most
        encoded = decoder(request.headers.getlist("content-encoding"))
        length = int(request.headers.get("content-length", at_most))
        if length > at_most:
            raise self._too_large()
        plain = isinstance(encoded, Identity)
        size, small = (length, SMALL) if plain else (at_most, 0)
        body, read = bytearray(), 0
        async with self._reading(_owner(request), size) as reading:
            async for chunk in request.stream():
                read += len(chunk)
                if reading.since is None and len(body) + len(chunk) > small:
                    await self._give_room(reading)
                body += encoded.push(chunk, at_most - len(body))
                if max(read, len(body)) > at_most:
                    raise self._too_large()
        encoded.close()
        return bytes(body)

    @asynccontextmanager
    async def _reading(self, owner: Hashable, size: int) -> AsyncIterator[Reading]:
        """A body until it is whole, in bounded time; its room is given back then."""
        reading = Reading(owner, size, asyncio.timeout(BODY_SECONDS))
        try:
            async with reading.time:
                yield reading
        except TimeoutError:
            raise reading.late() from None
        finally:
            if reading.since is not None:
                del self._with_room[reading]
                self._room.release(size)
                self._hurry()

    async def _give_room(self, reading: Reading) -> None:
        loop = asyncio.get_running_loop()
        reading.waits = True
        loop.call_soon(self._hurry)  # it waits by then, if it has to
        await self._room.enter(reading.owner, reading.size)
        reading.waits = False
        reading.since = loop.time()
        self._with_room[reading] = None
        self._hurry()

    def _hurry(self) -> None:
        if self._room.waiting and self._with_room:
            next(iter(self._with_room)).hurry(asyncio.get_running_loop().time())

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"the request's body is over {self._at_most} bytes: send less")


def _owner(request: Request) -> Hashable:
    """Who sends it: a key, or a client's address where no keys are asked for."""
    key: Key | None = request.state.key
    if key is not None:
        return key.id
    return None if request.client is None else request.client.host
