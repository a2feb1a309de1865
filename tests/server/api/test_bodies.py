"""Request bodies that are being read share bounded memory, fairly."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import Request

from proctor.server.api import bodies as bodies_module
from proctor.server.api.bodies import FULL_SIZED, SMALL, UNDISTURBED_SECONDS, BodyReader
from proctor.server.errors import ApiError, RequestTimeout, Unavailable
from tests.server.gateway_process import gateway_process
from tests.server.harness import CHAT, advance_clock, body, with_timeout

LARGEST = 8 * SMALL
MIB = 2**20


class Client:
    """A client that sends one body in chunks."""

    def __init__(self, bodies: BodyReader, name: str = "a", **headers: str) -> None:
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope = {
            "type": "http",
            "client": (name, 1),
            "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
            "state": {"key": None},
        }
        self._bodies = bodies
        self._request = Request(scope, self._messages.get)
        self.reading = asyncio.create_task(bodies.read(self._request))

    async def send(self, data: bytes, *, last: bool = False) -> None:
        """Send a chunk, and let the server read it."""
        self._messages.put_nowait({"type": "http.request", "body": data, "more_body": not last})
        await run_pending_tasks()

    async def leave(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})
        await run_pending_tasks()

    @property
    def unread(self) -> int:
        """The number of chunks that the server has not read."""
        return self._messages.qsize()

    async def refused(self) -> ApiError:
        with pytest.raises(ApiError) as caught:
            await with_timeout(self.reading)
        return caught.value


async def run_pending_tasks() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def full_memory(name: str = "a") -> AsyncIterator[tuple[BodyReader, list[Client]]]:
    """Yield a reader whose memory is fully reserved by clients that stopped sending."""
    bodies = BodyReader(LARGEST)
    clients = [Client(bodies, name) for _ in range(FULL_SIZED)]
    for each in clients:
        await each.send(b"x" * (SMALL + 1))
    try:
        yield bodies, clients
    finally:
        for each in clients:
            each.reading.cancel()
        await asyncio.gather(*(each.reading for each in clients), return_exceptions=True)


async def test_a_small_body_needs_no_reservation() -> None:
    async with full_memory() as (bodies, _):
        waiting = Client(bodies)
        await waiting.send(b"x" * (SMALL + 1))
        small = Client(bodies)
        for _ in range(2):
            await small.send(b"x" * (SMALL // 2))
        await small.send(b"", last=True)

        assert await with_timeout(small.reading) == b"x" * SMALL
        assert not waiting.reading.done()
        waiting.reading.cancel()


async def test_a_large_body_is_not_read_while_it_waits_for_memory() -> None:
    async with full_memory() as (bodies, clients):
        waiting = Client(bodies)
        for _ in range(3):
            await waiting.send(b"y" * (SMALL + 1))
        assert waiting.unread == 2
        await clients[3].send(b"", last=True)
        assert len(await with_timeout(clients[3].reading)) == SMALL + 1
        await run_pending_tasks()
        assert waiting.unread == 0
        await waiting.send(b"", last=True)
        assert await with_timeout(waiting.reading) == b"y" * 3 * (SMALL + 1)


async def test_a_body_with_a_content_length_reserves_only_that() -> None:
    bodies = BodyReader(LARGEST)
    length = str(LARGEST // 2)
    clients = [Client(bodies, **{"content-length": length}) for _ in range(2 * FULL_SIZED + 1)]
    for each in clients:
        await each.send(b"x" * (LARGEST // 2), last=True)
        assert len(await with_timeout(each.reading)) == LARGEST // 2
    clients = [Client(bodies, **{"content-length": length}) for _ in range(2 * FULL_SIZED + 1)]
    for each in clients:
        for _ in range(2):
            await each.send(b"x" * (SMALL + 1))

    assert [each.unread for each in clients] == [0] * 2 * FULL_SIZED + [1]
    for each in clients:
        each.reading.cancel()


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
async def test_a_compressed_body_reserves_memory_before_it_is_decompressed(encoding: str) -> None:
    packed = gzip.compress(b"x" * LARGEST)

    async with full_memory() as (bodies, clients):
        waiting = Client(bodies, **{"content-encoding": encoding})
        await waiting.send(packed, last=True)
        assert not waiting.reading.done()
        await clients[0].leave()
        assert await with_timeout(waiting.reading) == b"x" * LARGEST


async def test_an_old_reservation_times_out_when_others_wait() -> None:
    async with full_memory() as (bodies, clients):
        advance_clock(UNDISTURBED_SECONDS + 1)
        await clients[0].send(b"", last=True)
        await with_timeout(clients[0].reading)
        late = Client(bodies)
        await late.send(b"x" * (SMALL + 1))
        assert not any(each.reading.done() for each in clients[1:])  # no request is waiting

        waiting = Client(bodies)
        await waiting.send(b"y" * (SMALL + 1), last=True)
        error = await clients[1].refused()
        assert len(await with_timeout(waiting.reading)) == SMALL + 1
        assert not any(each.reading.done() for each in [*clients[2:], late])
        late.reading.cancel()

    assert isinstance(error, RequestTimeout)
    assert error.headers["retry-after"]


async def test_a_new_reservation_is_kept_undisturbed_for_a_while() -> None:
    async with full_memory() as (bodies, clients):
        waiting = Client(bodies)
        await waiting.send(b"y" * (SMALL + 1), last=True)
        advance_clock(UNDISTURBED_SECONDS - 1)
        await run_pending_tasks()
        assert not any(each.reading.done() for each in clients)
        advance_clock(1)
        assert isinstance(await clients[0].refused(), RequestTimeout)
        assert len(await with_timeout(waiting.reading)) == SMALL + 1
        await run_pending_tasks()
        assert not any(each.reading.done() for each in clients[1:])


async def test_waiting_clients_are_served_round_robin() -> None:
    async with full_memory("a") as (bodies, clients):
        many = [Client(bodies, "a") for _ in range(9)]
        one = Client(bodies, "b")
        for each in [*many, one]:
            await each.send(b"y" * (SMALL + 1), last=True)
        for each in clients[:2]:
            await each.leave()

        assert len(await with_timeout(one.reading)) == SMALL + 1
        for each in clients[2:]:
            await each.leave()
        await with_timeout(asyncio.gather(*(each.reading for each in many)))


async def test_a_body_that_gets_no_memory_is_a_503_with_retry_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with full_memory() as (bodies, clients):
        monkeypatch.setattr(bodies_module, "BODY_SECONDS", UNDISTURBED_SECONDS / 2)
        waiting = Client(bodies)
        await waiting.send(b"y" * (SMALL + 1))
        advance_clock(UNDISTURBED_SECONDS / 2)
        error = await waiting.refused()
        assert not any(each.reading.done() for each in clients)

    assert isinstance(error, Unavailable)
    assert error.headers["retry-after"]


async def test_a_disconnected_client_leaves_the_queue() -> None:
    async with full_memory() as (bodies, clients):
        gone, waiting = Client(bodies), Client(bodies)
        for each in (gone, waiting):
            await each.send(b"y" * (SMALL + 1), last=True)
        gone.reading.cancel()
        await clients[0].leave()
        assert len(await with_timeout(waiting.reading)) == SMALL + 1


async def hold_open(url: str, size: int) -> socket.socket:
    """Open a connection, and send the headers of a POST request with a body of `size` bytes."""
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    made = socket.socket()
    made.setblocking(False)
    await loop.sock_connect(made, (str(address.hostname), address.port))
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n"
    await loop.sock_sendall(made, head.encode())
    return made


@pytest.mark.slow
async def test_many_open_bodies_share_their_memory() -> None:
    size, unsent = 4 * MIB, b"x" * (4 * MIB - 1)

    async with gateway_process() as server, httpx.AsyncClient(base_url=server.url) as http:
        assert (await http.post(CHAT, json=body())).status_code == 200
        before = server.resident_bytes
        held = [await hold_open(server.url, size) for _ in range(150)]
        loop = asyncio.get_running_loop()
        sending = [asyncio.create_task(loop.sock_sendall(each, unsent)) for each in held]
        most = taken = 0
        while taken < FULL_SIZED:
            assert (await with_timeout(http.post(CHAT, json=body()))).status_code == 200
            most = max(most, server.resident_bytes)
            taken = sum(each.done() for each in sending)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        for each in held:
            each.close()

    assert most - before < 200 * MIB
