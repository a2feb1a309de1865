"""A load generator that reads raw sockets, so that it costs little beside the server."""

import asyncio
import string
import time
from collections.abc import Mapping
from typing import Any

import orjson

PROBE_SECONDS = 10.0
CAPITALS = string.ascii_uppercase.encode()


def request(body: Mapping[str, Any]) -> bytes:
    """Return an HTTP request for a chat completion."""
    data = orjson.dumps(body)
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sk-1\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


class Stream(asyncio.Protocol):
    """One streamed response, of which tokens and events are counted.

    Attributes:
        tokens: the tokens so far.
        events: the events so far.
        started: completed at the first token.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._request = request(body)
        self._transport: asyncio.BaseTransport | None = None
        self._has_head = False
        self.tokens = 0
        self.events = 0
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._has_head:
            if not data.startswith(b"HTTP/1.1 200"):
                self.started.set_exception(RuntimeError(data[:500].decode()))
                return
            self._has_head = True
            _, _, data = data.partition(b"\r\n\r\n")
        self.events += data.count(b"data: ")
        self.tokens += len(data) - len(data.translate(None, CAPITALS))
        if self.tokens and not self.started.done():
            self.started.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.started.done():
            self.started.set_exception(RuntimeError("a stream ended before its first token"))

    def close(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            self._transport.close()


class Connection(asyncio.Protocol):
    """A connection that is kept alive for one request after the other."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._received = bytearray()
        self._response: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._response is None or self._response.done() or not _is_complete(self._received):
            return
        if self._received.startswith(b"HTTP/1.1 200"):
            self._response.set_result(None)
        else:
            self._response.set_exception(RuntimeError(self._received[:500].decode()))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._response is not None and not self._response.done():
            self._response.set_exception(RuntimeError("the server closed the connection"))

    async def send(self, request: bytes) -> None:
        """Send a request, and wait for the whole response."""
        assert self._transport is not None
        if self._transport.is_closing():
            raise RuntimeError("the server closed the connection")
        self._received.clear()
        self._response = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._response

    def close(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            self._transport.close()


def _is_complete(received: bytearray) -> bool:
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return False
    head = head.lower()
    if b"transfer-encoding: chunked" in head:
        return received.endswith(b"0\r\n\r\n")
    start = head.find(b"content-length: ") + len(b"content-length: ")
    return len(body) >= int(head[start:].split(b"\r\n", 1)[0])


class Pool:
    """Connections that are opened as they are needed, and reused."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def send(self, data: bytes) -> float:
        """Send a request, and return the seconds until its response is complete."""
        if self._idle:
            connection = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, "127.0.0.1", self._port)
        began = time.perf_counter()
        await connection.send(data)
        seconds = time.perf_counter() - began
        self._idle.append(connection)
        return seconds

    def close(self) -> None:
        """Close the connections."""
        for connection in self._idle:
            connection.close()


async def open_streams(port: int, count: int, body: Mapping[str, Any]) -> list[Stream]:
    """Open streams, a few at a time, and wait until each has its first token."""
    loop, streams = asyncio.get_running_loop(), []
    for start in range(0, count, 64):
        batch = [
            (await loop.create_connection(lambda: Stream(body), "127.0.0.1", port))[1]
            for _ in range(start, min(count, start + 64))
        ]
        await asyncio.gather(*(stream.started for stream in batch))
        streams += batch
    return streams


async def send_at_rate(
    port: int, body: Mapping[str, Any], rate: float, seconds: float
) -> list[float]:
    """Send requests at a rate, whether or not the server keeps up, and return their latencies."""
    loop, pool, data = asyncio.get_running_loop(), Pool(port), request(body)
    tasks: list[asyncio.Task[float]] = []
    began = loop.time()
    for index in range(int(rate * seconds)):
        if (wait := began + index / rate - loop.time()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(pool.send(data)))
    latencies = await asyncio.gather(*tasks)
    pool.close()
    return latencies


async def answers(port: int, data: bytes) -> bool:
    """Return whether a server answers a request."""
    pool = Pool(port)
    try:
        await asyncio.wait_for(pool.send(data), PROBE_SECONDS)
    except (OSError, RuntimeError, TimeoutError):
        return False
    finally:
        pool.close()
    return True
