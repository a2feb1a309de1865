"""Reading of request bodies, bounded one by one and all together."""

import asyncio
import sys
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Request

from proctor.server.api.encodings import Identity, decoder
from proctor.server.auth.api_key import Key
from proctor.server.errors import SOON, ApiError, BodyTooLarge, RequestTimeout, Unavailable
from proctor.server.fair_queue import FairQueue

BODY_SECONDS = 60.0
"""The time limit for receiving a body, the wait for memory included."""

SMALL = 64 * 2**10
"""The size in bytes up to which a body needs no memory reservation."""

FULL_SIZED = 16
"""The number of bodies of the maximum size that fit into memory at a time."""

UNDISTURBED_SECONDS = 5.0
"""The time for which a body keeps its memory although others wait for theirs."""


@dataclass(eq=False, slots=True)
class Reading:
    """A body that is being received.

    Attributes:
        owner: the client that sends it.
        size: the maximum number of bytes that it may reach.
        timeout: the time limit.
        waits: whether it waits for memory.
        since: when memory was reserved, by the event loop's clock; None before.
        hurried: whether the time limit was shortened because others wait.
    """

    owner: Hashable
    size: int
    timeout: asyncio.Timeout
    waits: bool = False
    since: float | None = None
    hurried: bool = False

    def hurry(self, now: float) -> None:
        """Shorten the time limit to `UNDISTURBED_SECONDS` after the reservation, or to now."""
        if self.since is None or self.hurried or self.timeout.expired():
            return
        deadline, current = max(now, self.since + UNDISTURBED_SECONDS), self.timeout.when()
        if current is not None and deadline < current:
            self.hurried = True
            self.timeout.reschedule(deadline)

    def timeout_error(self) -> ApiError:
        """Return the error for a client whose body was not received in time."""
        if self.waits:
            return Unavailable(
                "Too many large request bodies are being received. Try again later.", headers=SOON
            )
        if self.hurried:
            return RequestTimeout(
                f"The request body was not received within {UNDISTURBED_SECONDS:g} s while other "
                "requests were waiting to send theirs. Try again later.",
                headers=SOON,
            )
        return RequestTimeout(f"The request body was not received within {BODY_SECONDS:g} s.")


class BodyReader:
    """Reads request bodies into bounded memory.

    Small bodies are always read. A larger body first reserves memory for its maximum
    size, and never waits again afterwards. Reservations are granted round-robin over
    clients; a body that waits for one is not read from its connection. While others
    wait, the body with the oldest reservation must be complete soon.
    """

    def __init__(self, max_bytes: int) -> None:
        """Initialize the reader.

        Args:
            max_bytes: the maximum size of a body, both compressed and decompressed.
        """
        self._max_bytes = max_bytes
        self._memory = FairQueue(FULL_SIZED * max_bytes, sys.maxsize)
        self._with_memory: dict[Reading, None] = {}

    async def read(self, request: Request) -> bytes:
        """Return the whole body, decompressed and checked for its size while it is received.

        Raises:
            BadRequest: if the body cannot be decompressed.
            UnsupportedEncoding: if the content encoding is not supported.
            BodyTooLarge: if the body exceeds the maximum size, compressed or decompressed.
            RequestTimeout: if the body was not received in time.
            Unavailable: if no memory became available in time.
            ClientDisconnect: if the client disconnected.
        """
        maximum = self._max_bytes
        content = decoder(request.headers.getlist("content-encoding"))
        length = int(request.headers.get("content-length", maximum))
        if length > maximum:
            raise self._too_large()
        plain = isinstance(content, Identity)
        size, small = (length, SMALL) if plain else (maximum, 0)
        body, received = bytearray(), 0
        async with self._reading(_owner(request), size) as reading:
            async for chunk in request.stream():
                received += len(chunk)
                if reading.since is None and len(body) + len(chunk) > small:
                    await self._reserve(reading)
                body += content.decompress(chunk, maximum - len(body))
                if max(received, len(body)) > maximum:
                    raise self._too_large()
        content.close()
        return bytes(body)

    @asynccontextmanager
    async def _reading(self, owner: Hashable, size: int) -> AsyncIterator[Reading]:
        """Bound the time of reading a body, and release its memory afterwards."""
        reading = Reading(owner, size, asyncio.timeout(BODY_SECONDS))
        try:
            async with reading.timeout:
                yield reading
        except TimeoutError:
            raise reading.timeout_error() from None
        finally:
            if reading.since is not None:
                del self._with_memory[reading]
                self._memory.release(size)
                self._hurry()

    async def _reserve(self, reading: Reading) -> None:
        loop = asyncio.get_running_loop()
        reading.waits = True
        loop.call_soon(self._hurry)  # by then, it waits if it has to
        await self._memory.enter(reading.owner, reading.size)
        reading.waits = False
        reading.since = loop.time()
        self._with_memory[reading] = None
        self._hurry()

    def _hurry(self) -> None:
        if self._memory.waiting and self._with_memory:
            next(iter(self._with_memory)).hurry(asyncio.get_running_loop().time())

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The request body exceeds the limit of {self._max_bytes} bytes.")


def _owner(request: Request) -> Hashable:
    """Return the ID of the request's key, or the client's address if keys are not required."""
    key: Key | None = request.state.key
    if key is not None:
        return key.id
    return None if request.client is None else request.client.host
