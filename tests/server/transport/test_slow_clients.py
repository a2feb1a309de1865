"""Data buffered for slow clients is bounded, and clients that read lose nothing."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from string import ascii_letters
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import pytest

from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.transport import slow_clients
from proctor.server.transport.http_protocol import MAX_PIPELINED
from proctor.server.transport.slow_clients import (
    MAX_BUFFERED,
    UNDISTURBED_SECONDS,
    ClientTransport,
    SlowClients,
)
from tests.server import harness
from tests.server.accounting.ledger.records import read_records
from tests.server.api.test_errors import assert_error
from tests.server.gateway_process import gateway_process
from tests.server.harness import (
    CHAT,
    Gate,
    advance_clock,
    body,
    merge_deltas,
    parse_events,
    running_server,
    with_timeout,
)
from tests.server.transport.test_unread_bodies import GET, HEALTHY, answer, connected, post

pytestmark = pytest.mark.slow

MIB = 2**20
SECONDS = 60.0
LONG = Script(("".join(Random(7).choices(ascii_letters, k=500)),), "y" * 1001)
OPENAPI = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"
SCORED: dict[str, Any] = {"logprobs": True, "top_logprobs": 20, "thinking": {"logprobs": True}}


class Pipe(asyncio.Transport):
    """A transport whose client reads when a test says so."""

    def __init__(self) -> None:
        self.waiting = 0
        self.aborted = False

    def write(self, data: Any) -> None:
        self.waiting += len(data)

    def take(self, size: int) -> None:
        self.waiting -= min(size, self.waiting)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


class Connections:
    """Several connections of one server."""

    def __init__(self, count: int, waiting: int) -> None:
        slow = SlowClients(SECONDS)
        self.pipes = [Pipe() for _ in range(count)]
        self.transports = [ClientTransport(pipe, slow, lambda: None) for pipe in self.pipes]
        for each in self.transports:
            each.write(bytes(waiting))

    async def seconds(self, count: int, each: Callable[[], None] = lambda: None) -> None:
        """Advance the clock second by second, and call `each` in every second."""
        for _ in range(count):
            each()
            advance_clock(1.001)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    @property
    def gone(self) -> list[bool]:
        return [pipe.aborted for pipe in self.pipes]


async def test_a_client_that_reads_nothing_is_disconnected() -> None:
    clients = Connections(2, 100)
    await clients.seconds(int(SECONDS) - 1, lambda: clients.pipes[1].take(1))
    assert clients.gone == [False, False]
    await clients.seconds(3, lambda: clients.pipes[1].take(1))
    assert clients.gone == [True, False]


async def test_the_timeout_restarts_once_everything_is_read() -> None:
    clients = Connections(1, 100)
    await clients.seconds(50)
    clients.pipes[0].take(100)
    await clients.seconds(50)
    clients.transports[0].write(b"x")
    await clients.seconds(50)
    assert clients.gone == [False]
    await clients.seconds(20)
    assert clients.gone == [True]


async def test_the_slowest_clients_are_disconnected_when_too_much_is_buffered() -> None:
    clients = Connections(5, MAX_BUFFERED // 4)

    def take() -> None:
        for index, pipe in enumerate(clients.pipes):
            pipe.take(index * 1000)

    await clients.seconds(int(UNDISTURBED_SECONDS) - 1, take)
    assert clients.gone == [False] * 5
    await clients.seconds(3, take)
    assert clients.gone == [True] + [False] * 4


async def test_a_steady_reader_of_a_large_response_is_not_disconnected() -> None:
    clients = Connections(1, 2 * MAX_BUFFERED)
    await clients.seconds(30, lambda: clients.pipes[0].take(MAX_BUFFERED // 20))
    assert clients.gone == [False]


@asynccontextmanager
async def non_reading_client(url: str, sent: bytes) -> AsyncIterator[socket.socket]:
    """Connect a client that sends `sent`, and does not read."""
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.setblocking(False)
        await loop.sock_connect(made, (str(address.hostname), address.port))
        await loop.sock_sendall(made, sent)
        yield made


def raw_request(path: str = CHAT, **fields: Any) -> bytes:
    content = orjson.dumps(fields if "prompt" in fields else body(**fields))
    return post(path, b"content-length: %d" % len(content)) + content


async def read_all(connection: socket.socket) -> bytes:
    """Read until the connection is closed or reset."""
    with contextlib.suppress(ConnectionError):
        return await read_until(connection, until=None)
    return b""


async def read_until(connection: socket.socket, until: bytes | None) -> bytes:
    """Read until the data ends with `until`, or the connection is closed."""
    loop = asyncio.get_running_loop()
    got = bytearray()
    while part := await with_timeout(loop.sock_recv(connection, 2**12)):
        got += part
        if until is not None and got.endswith(until):
            break
    return bytes(got)


def decode_chunks(content: bytes) -> bytes:
    """Decode a chunked body."""
    whole = bytearray()
    while content:
        size, _, content = content.partition(b"\r\n")
        whole += content[: int(size, 16)]
        content = content[int(size, 16) + 2 :]
    return bytes(whole)


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the server's socket buffers small, so that unread data waits in the server."""
    listening_socket = harness.listening_socket

    def with_small_buffer() -> socket.socket:
        listener = listening_socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return listener

    monkeypatch.setattr(harness, "listening_socket", with_small_buffer)


@pytest.fixture
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Limits that disconnect a client that does not read after 0.2 seconds."""
    monkeypatch.setattr(slow_clients, "CHECK_SECONDS", 0.05)
    return {"send_timeout_seconds": 0.2}


@pytest.fixture
def disconnected(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set once a client has been disconnected."""
    disconnected = asyncio.Event()
    abort = ClientTransport.abort

    def notify_and_abort(self: ClientTransport) -> None:
        disconnected.set()
        abort(self)

    monkeypatch.setattr(ClientTransport, "abort", notify_and_abort)
    return disconnected


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_generation_stops_when_the_client_does_not_read(
    path: str, short_timeout: dict[str, Any], tmp_path: Path
) -> None:
    gate = Gate(1000)
    engine = FakeEngine(LONG, before_token=gate, context_length=10**5)
    ledger = {"url": f"sqlite:///{tmp_path / 'ledger.db'}"}
    raw = {"model": "fake", "prompt": "hi", "logprobs": 5, "max_tokens": 5000}
    wanted = SCORED if path == CHAT else raw
    sent = raw_request(path, stream=True, **wanted)

    async with (
        running_server(engine, limits=short_timeout, ledger=ledger) as url,
        non_reading_client(url, sent),
    ):
        await with_timeout(gate.reached.wait())
        aborted = await with_timeout(engine.aborted.get())

    assert aborted == engine.jobs[0].id
    (row,) = await read_records(ledger["url"])
    assert (row.status, row.finish_reason, row.completion_tokens) == (499, "abort", 1000)


@pytest.mark.parametrize(
    ("sent", "last"),
    [
        pytest.param(raw_request(**SCORED), b"}", id="a whole answer"),
        pytest.param(raw_request(stream=True, **SCORED), b"0\r\n\r\n", id="a stream"),
        pytest.param(OPENAPI * 90, b"}", id="many answers"),
    ],
)
async def test_unread_responses_are_dropped(
    sent: bytes, last: bytes, short_timeout: dict[str, Any], disconnected: asyncio.Event
) -> None:
    engine = FakeEngine(LONG, context_length=10**5)

    async with (
        running_server(engine, limits=short_timeout) as url,
        non_reading_client(url, sent) as connection,
        httpx.AsyncClient(base_url=url) as http,
    ):
        await with_timeout(disconnected.wait())
        got = await read_all(connection)
        assert (await http.get("/health")).status_code == 200

    assert got.startswith(b"HTTP/1.1 200 ")
    assert not got.endswith(last)


async def test_a_slow_reader_delays_nobody_and_loses_nothing() -> None:
    gate = Gate(1500)
    engine = FakeEngine(LONG, before_token=gate, context_length=10**5)

    async with (
        running_server(engine) as url,
        non_reading_client(url, raw_request(stream=True, **SCORED)) as connection,
        httpx.AsyncClient(base_url=url) as http,
    ):
        await with_timeout(gate.reached.wait())  # everything is generated although nothing was read
        gate.opened.set()
        whole = await http.post(CHAT, json=body(**SCORED))
        got = await read_until(connection, until=b"0\r\n\r\n")

    head, _, chunked = got.partition(b"\r\n\r\n")
    assert b"chunked" in head
    events = parse_events(decode_chunks(chunked).decode())
    message = merge_deltas(event.choice["delta"] for event in events[:-1])
    assert message == whole.json()["choices"][0]["message"]
    scored = [event.choice["logprobs"] for event in events[:-1] if "logprobs" in event.choice]
    of_answer = [each for logprobs in scored for each in logprobs.get("content", ())]
    assert of_answer == whole.json()["choices"][0]["logprobs"]["content"]
    assert events[-1].data == "[DONE]"


async def test_pipelined_responses_wait_for_the_previous_one() -> None:
    count = 50

    async with (
        running_server(FakeEngine()) as url,
        httpx.AsyncClient(base_url=url) as http,
        non_reading_client(url, OPENAPI * count + GET) as connection,
    ):
        whole = (await http.get("/openapi.json")).content
        got = await read_until(connection, until=HEALTHY)

    assert len(whole) > 2**16
    assert got.count(whole) == count


async def test_pipelined_requests_are_limited() -> None:
    async with running_server(FakeEngine()) as url, connected(url) as (reader, writer):
        writer.write(GET * 9 * MAX_PIPELINED)
        for _ in range(MAX_PIPELINED + 1):
            assert (await answer(reader)).content == HEALTHY
        error = assert_error(await answer(reader), 400, None)
        assert await with_timeout(reader.read()) == b""

    assert str(MAX_PIPELINED) in error["message"]


async def test_many_clients_that_do_not_read_use_bounded_memory() -> None:
    count, text = 15, 500
    wanted = raw_request(stream=True, max_tokens=2 * text, **SCORED)
    engine = f"Script((), 'y' * {text})"

    async with gateway_process(engine) as server, httpx.AsyncClient(base_url=server.url) as http:
        assert (await http.post(CHAT, json=body(**SCORED))).status_code == 200
        whole = len((await http.get("/openapi.json")).content)
        before = server.resident_bytes
        async with AsyncExitStack() as clients:
            for sent in [wanted, OPENAPI * 90] * count:
                await clients.enter_async_context(non_reading_client(server.url, sent))
            while "proctor_in_flight 0.0" not in (await http.get("/metrics")).text:
                pass
            grown = server.resident_bytes - before

    assert count * 90 * whole > 150 * MIB
    assert grown < 100 * MIB
