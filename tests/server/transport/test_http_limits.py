"""Limits of a request; exceeding them does not affect other requests."""

import asyncio
from urllib.parse import urlsplit

import httpx
import orjson
import pytest

from proctor.server.api import bodies
from proctor.server.engines.fake import FakeEngine
from proctor.server.transport import http_protocol
from proctor.server.transport.http_protocol import MAX_HEAD
from tests.server.api.test_errors import assert_error
from tests.server.harness import CHAT, Gate, body, client, running_server, with_timeout

pytestmark = pytest.mark.slow

GET = b"GET /health HTTP/1.1\r\nhost: x\r\n"
CHUNKED = b"POST /v1/route HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
MEGABYTE = b"x" * 2**20
LONG = "k" * 10**5


async def converse(url: str, *parts: bytes) -> httpx.Response:
    """Send raw bytes, and return the response."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    status, *lines = (await with_timeout(reader.readuntil(b"\r\n\r\n"))).decode().split("\r\n")[:-2]
    fields = dict(line.split(": ", 1) for line in lines)
    content = await with_timeout(reader.readexactly(int(fields["content-length"])))
    writer.close()
    return httpx.Response(int(status.split()[1]), headers=fields, content=content)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([GET, b"a: ", MEGABYTE], id="a value"),
        pytest.param([GET, MEGABYTE], id="a name"),
        pytest.param([GET, b"a: 1\r\n" * 20_000], id="many headers"),
        pytest.param([b"GET /" + MEGABYTE], id="a path"),
        pytest.param([b"GET /health?" + MEGABYTE], id="a query"),
        pytest.param([CHUNKED, b"0\r\na: ", MEGABYTE], id="a header after the body"),
        pytest.param([CHUNKED, b"2;" + MEGABYTE], id="a chunk's extension"),
    ],
)
async def test_headers_over_the_limit(parts: list[bytes]) -> None:
    async with running_server(FakeEngine()) as url, httpx.AsyncClient(base_url=url) as http:
        assert_error(await converse(url, *parts), 431, None)
        assert (await http.get("/health")).status_code == 200


async def test_headers_within_the_limit() -> None:
    long = b"a: " + b"x" * (MAX_HEAD - 1000) + b"\r\n"
    last = b"connection: close\r\n\r\n"

    async with running_server(FakeEngine()) as url:
        at_once = await converse(url, GET + long + last)
        in_pieces = await converse(url, *(bytes([byte]) for byte in GET), long, last)

    assert at_once.status_code == in_pieces.status_code == 200


async def test_the_limit_applies_to_each_request() -> None:
    long = {"a": "x" * (MAX_HEAD // 2)}

    async with running_server(FakeEngine()) as url, httpx.AsyncClient(base_url=url) as http:
        for _ in range(4):
            assert (await http.get("/health", headers=long)).status_code == 200
        big = body(messages=[{"role": "user", "content": "x" * 10**6}])
        assert_error(await http.post(CHAT, json=big), 400, "messages")


async def test_incomplete_headers_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.2)
    gate = Gate(2)
    async with (
        running_server(FakeEngine(before_token=gate)) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        running = asyncio.create_task(http.post(CHAT, json=body()))
        await with_timeout(gate.reached.wait())
        assert_error(await converse(url, GET), 408, None)
        assert_error(await converse(url, GET + b"a: "), 408, None)
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        assert await with_timeout(reader.read()) == b""  # a connection without a request is closed
        writer.close()
        gate.opened.set()
        assert (await running).status_code == 200
        assert (await http.get("/health")).status_code == 200


async def test_a_slow_body_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.2)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"
    async with running_server(FakeEngine()) as url, httpx.AsyncClient(base_url=url) as http:
        assert_error(await converse(url, head + b'{"model"'), 408, None)
        assert (await http.post(CHAT, json=body())).status_code == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HELLO\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        GET + b"content-length: 1\r\ncontent-length: 2\r\n\r\n",
        GET + b"content-length: -1\r\n\r\n",
        GET + b"a\0: 1\r\n\r\n",
        CHUNKED + b"zz\r\n",
    ],
)
async def test_invalid_http_is_a_400(raw: bytes) -> None:
    async with running_server(FakeEngine()) as url, httpx.AsyncClient(base_url=url) as http:
        response = await converse(url, raw)
        assert_error(response, 400, None)
        assert response.headers["x-request-id"]
        assert (await http.get("/health")).status_code == 200


async def test_a_client_receives_the_413_for_its_large_body() -> None:
    async with running_server(FakeEngine()) as url, httpx.AsyncClient(base_url=url) as http:
        assert_error(await http.post(CHAT, content=MEGABYTE * 20), 413, None)
        assert (await http.post(CHAT, json=body())).status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        '"max_tokens":9,"max_tokens":9',
        '"thinking":{"min_tokens":1,"min_tokens":2}',
        '"metadata":{' + f'"{LONG}":1,"{LONG}":2' + "}",
    ],
)
async def test_a_duplicate_field_is_refused(fields: str) -> None:
    raw = f'{{"model":"fake","messages":[{{"role":"user","content":"x"}}],{fields}}}'

    async with client(FakeEngine()) as http:
        error = assert_error(await http.post(CHAT, content=raw), 400, None)

    assert "duplicate" in error["message"]
    assert len(error["message"]) < 300


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("\0", 400),
        ("\\ud800", 400),
        ("\\udc00\\ud800", 400),
        ("\xff", 400),
        ("\\u0000", 200),
        ("\\ud83e\\udd14", 200),
        ("\\ufffe\\uffff", 200),
    ],
)
async def test_unusual_characters_in_texts(text: str, status: int) -> None:
    raw = f'{{"model":"fake","messages":[{{"role":"user","content":"{text}"}}]}}'

    async with client(FakeEngine()) as http:
        response = await http.post(CHAT, content=raw.encode("latin-1"))

    assert response.status_code == status
    if status == 400:
        assert_error(response, 400, None)


@pytest.mark.parametrize("depth", [100, 250, 10**5])
@pytest.mark.parametrize("field", ["metadata", "thinking", "messages"])
async def test_deeply_nested_values_are_refused(field: str, depth: int) -> None:
    nested = '{"a":' * depth + "1" + "}" * depth
    request = {"model": "fake", "messages": [{"role": "user", "content": "x"}]}
    plain = ",".join(
        f'"{key}":{orjson.dumps(to).decode()}' for key, to in request.items() if key != field
    )
    async with client(FakeEngine()) as http:
        response = await http.post(CHAT, content=f'{{{plain},"{field}":{nested}}}')

    if (field, depth) == ("metadata", 100):
        assert response.status_code == 200
    else:
        assert response.status_code == 400
        assert response.json()["error"]["type"] == "invalid_request_error"
