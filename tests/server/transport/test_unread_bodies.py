"""Responses sent before the request body was read completely reach the client."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import pytest

from proctor.server.engines.fake import FakeEngine
from proctor.server.transport import http_protocol
from tests.server.api.test_errors import assert_error
from tests.server.harness import CHAT, Gate, body, running_server, with_timeout
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow

LARGE = 2**24
"""More bytes than the socket buffers between a client and a server hold."""

PIECE = b"x" * 2**16
GET = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
HEALTHY = b'{"status":"ok"}'


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield reader, writer
    finally:
        writer.close()


def post(path: str, *headers: bytes) -> bytes:
    line = b"POST " + path.encode() + b" HTTP/1.1"
    return b"\r\n".join([line, b"host: x", *headers, b"", b""])


async def answer(reader: asyncio.StreamReader) -> httpx.Response:
    """Read the next response of a connection."""
    status, *lines = (await with_timeout(reader.readuntil(b"\r\n\r\n"))).decode().split("\r\n")[:-2]
    headers = httpx.Headers([tuple(line.split(": ", 1)) for line in lines])
    content = await with_timeout(reader.readexactly(int(headers.get("content-length", 0))))
    return httpx.Response(int(status.split()[1]), headers=headers, content=content)


def pieces() -> Iterator[bytes]:
    for _ in range(LARGE // len(PIECE)):
        yield PIECE


def send_all_then_read(
    url: str, path: str, headers: dict[str, str], chunked: bool
) -> tuple[int, bytes]:
    """Send everything before reading, and return the status and the body of the response."""
    address = urlsplit(url)
    connection = HTTPConnection(str(address.hostname), address.port, timeout=PATIENCE)
    sent = pieces() if chunked else b"x" * LARGE
    connection.request("POST", path, body=sent, headers=headers, encode_chunked=chunked)
    response = connection.getresponse()
    try:
        return response.status, response.read()
    finally:
        connection.close()


REFUSED: list[tuple[int, str, dict[str, str], dict[str, Any]]] = [
    (401, CHAT, {}, {"auth": {"required": True}}),
    (403, CHAT, {"origin": "https://evil.example.com"}, {}),
    (404, "/nowhere", {}, {}),
    (405, "/health", {}, {}),
    (413, CHAT, {}, {}),
    (415, CHAT, {"content-encoding": "br"}, {}),
    (429, CHAT, {}, {"limits": {"max_running": 1, "max_waiting": 0}}),
]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("closing", [False, True])
@pytest.mark.parametrize(
    ("status", "path", "headers", "overrides"), REFUSED, ids=[str(each[0]) for each in REFUSED]
)
async def test_a_client_that_keeps_sending_receives_the_refusal(
    status: int,
    path: str,
    headers: dict[str, str],
    overrides: dict[str, Any],
    closing: bool,
    chunked: bool,
) -> None:
    gate = Gate(1)
    if closing:
        headers = {**headers, "connection": "close"}

    async with (
        running_server(FakeEngine(before_token=gate), **overrides) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        running = asyncio.create_task(http.post(CHAT, json=body()))
        if status == 429:
            await with_timeout(gate.reached.wait())
        asking = asyncio.to_thread(send_all_then_read, url, path, headers, chunked)
        received, content = await with_timeout(asking)
        gate.opened.set()
        await with_timeout(running)

    assert received == status
    assert set(orjson.loads(content)["error"]) == {"message", "type", "param", "code"}


async def test_a_closing_connection_still_reads_the_body() -> None:
    head = post(CHAT, b"connection: close", b"content-length: %d" % LARGE)

    async with running_server(FakeEngine()) as url, connected(url) as (reader, writer):
        writer.write(head)
        refused = await answer(reader)
        ended = await with_timeout(reader.read())
        for piece in pieces():
            writer.write(piece)
            await with_timeout(writer.drain())
        writer.write(GET)  # one request too many
        rest = await with_timeout(reader.read())

    assert_error(refused, 413, None)
    assert refused.headers["connection"] == "close"
    assert ended == rest == b""


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_rest_of_a_body_is_not_parsed_as_a_request(chunked: bool) -> None:
    inside = GET * 1000
    framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % len(inside)
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(inside), inside) if chunked else inside

    async with running_server(FakeEngine()) as url, connected(url) as (reader, writer):
        writer.write(post("/nowhere", framing))
        assert_error(await answer(reader), 404, None)
        writer.write(sent + post("/elsewhere", b"content-length: 0", b"connection: close"))
        second = await answer(reader)
        rest = await with_timeout(reader.read())

    assert "/elsewhere" in assert_error(second, 404, None)["message"]
    assert rest == b""


async def send_for_ever(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"1\r\nx\r\n")
        await writer.drain()
        await asyncio.sleep(0)


@pytest.mark.parametrize("closing", [False, True])
async def test_reading_an_endless_body_is_limited_in_time(
    monkeypatch: pytest.MonkeyPatch, closing: bool
) -> None:
    monkeypatch.setattr(http_protocol, "LINGER_SECONDS", 0.2)
    headers = [b"transfer-encoding: chunked", *([b"connection: close"] if closing else [])]

    async with running_server(FakeEngine()) as url, connected(url) as (reader, writer):
        writer.write(post("/nowhere", *headers))
        assert_error(await answer(reader), 404, None)
        with pytest.raises(ConnectionError):
            await with_timeout(send_for_ever(writer))


async def test_a_connection_is_kept_after_an_unread_body(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_server(FakeEngine()) as url, connected(url) as (reader, writer):
        for _ in range(3):
            writer.write(post("/nowhere", b"content-length: 10"))
            assert_error(await answer(reader), 404, None)
            writer.write(b"0123456789" + GET)
            assert (await answer(reader)).content == HEALTHY
        writer.write(post("/nowhere", b"content-length: 10"))
        assert_error(await answer(reader), 404, None)
        monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.2)
        writer.write(b"0123456789")
        assert await with_timeout(reader.read()) == b""  # no further request arrives


async def test_empty_lines_do_not_keep_a_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_server(FakeEngine()) as url, connected(url) as (reader, writer):
        writer.write(GET)
        assert (await answer(reader)).content == HEALTHY
        monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.2)
        writer.write(b"\r\n")
        assert_error(await answer(reader), 408, None)


@pytest.mark.parametrize(
    ("path", "status"), [("/nowhere", 404), ("/health", 405), (CHAT, 413), ("/v1/route", 413)]
)
async def test_expect_100_continue_is_refused_at_once(path: str, status: int) -> None:
    head = post(path, b"content-length: %d" % LARGE, b"expect: 100-continue")

    async with running_server(FakeEngine()) as url, connected(url) as (reader, writer):
        writer.write(head)
        refused = await answer(reader)
        writer.write(GET)  # after the refusal, this could be the body or a new request
        rest = await with_timeout(reader.read())

    assert_error(refused, status, None)
    assert refused.headers["connection"] == "close"
    assert rest == b""


async def test_expect_100_continue_is_granted() -> None:
    sent = b'{"model": "fake", "messages": [{"role": "user", "content": "hi"}]}'
    head = post(CHAT, b"content-length: %d" % len(sent), b"expect: 100-continue")

    async with running_server(FakeEngine()) as url, connected(url) as (reader, writer):
        for _ in range(2):
            writer.write(head)
            assert (
                await with_timeout(reader.readuntil(b"\r\n\r\n"))
                == b"HTTP/1.1 100 Continue\r\n\r\n"
            )
            writer.write(sent)
            response = await answer(reader)
            assert response.status_code == 200
            assert "connection" not in response.headers


@pytest.mark.parametrize(
    ("bad", "param"), [(b"HELLO\r\n\r\n", None), (b"GET / HTTP/1.1\r\n\r\n", "host")]
)
@pytest.mark.parametrize("before", [1, 3])
async def test_a_pipelined_invalid_request_is_refused_in_order(
    bad: bytes, param: str | None, before: int
) -> None:
    gate = Gate(1)
    content = b'{"model": "fake", "messages": [{"role": "user", "content": "hi"}]}'
    chat = post(CHAT, b"content-length: %d" % len(content)) + content

    async with (
        running_server(FakeEngine(before_token=gate)) as url,
        connected(url) as (reader, writer),
    ):
        writer.write(chat * before + bad)
        await with_timeout(gate.reached.wait())
        gate.opened.set()
        for _ in range(before):
            assert (await answer(reader)).status_code == 200
        assert_error(await answer(reader), 400, param)
        assert await with_timeout(reader.read()) == b""


async def test_an_invalid_pipelined_body_does_not_affect_earlier_responses() -> None:
    gate = Gate(1)
    content = b'{"model": "fake", "messages": [{"role": "user", "content": "hi"}]}'
    chat = post(CHAT, b"content-length: %d" % len(content)) + content
    broken = post(CHAT, b"transfer-encoding: chunked") + b"zz\r\n"

    async with (
        running_server(FakeEngine(before_token=gate)) as url,
        connected(url) as (reader, writer),
    ):
        writer.write(chat + broken)
        await with_timeout(gate.reached.wait())
        gate.opened.set()
        assert (await answer(reader)).status_code == 200
        assert_error(await answer(reader), 400, None)
        assert await with_timeout(reader.read()) == b""
