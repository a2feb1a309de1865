"""Validation of the host that a request names."""

import asyncio
from ipaddress import IPv6Address
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proctor.server.engines.fake import FakeEngine
from proctor.server.errors import BadRequest
from proctor.server.transport.host_header import check_host, to_origin_form
from tests.server.api.test_errors import assert_error
from tests.server.harness import CHAT, running_server, with_timeout
from tests.server.transport.test_http_limits import converse

pytestmark = pytest.mark.slow

LETTERS = {*b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;="}
HEX = {*b"0123456789abcdefABCDEF"}
LIKELY = b"aZ0:.[]%@/?#, _-\t\0\xff"


def request(line: bytes, *hosts: bytes) -> bytes:
    return b"\r\n".join([line, *(b"Host: " + host for host in hosts), b"", b""])


def is_host(value: bytes) -> bool:
    """Return whether this is `uri-host [":" port]` of RFC 3986, by its grammar rules."""
    if value.startswith(b"["):
        inside, closed, rest = value[1:].partition(b"]")
        try:
            IPv6Address(inside.decode("latin-1"))
        except ValueError:
            return False
        return bool(closed) and b"%" not in inside and is_port(rest)
    name, colon, port = value.partition(b":")
    return bool(name) and is_name(name) and is_port(colon + port)


def is_port(value: bytes) -> bool:
    return not value or (value[:1] == b":" and all(48 <= byte < 58 for byte in value[1:]))


def is_name(value: bytes) -> bool:
    while value:
        if value[0] == ord("%"):
            if len(value) < 3 or not {*value[1:3]} <= HEX:
                return False
            value = value[3:]
        elif value[0] in LETTERS:
            value = value[1:]
        else:
            return False
    return True


@pytest.mark.parametrize(
    "hosts",
    [
        pytest.param([], id="none"),
        pytest.param([b"a", b"b"], id="two"),
        pytest.param([b"a", b"a"], id="one twice"),
        pytest.param([b""], id="an empty one"),
        pytest.param([b"a b"], id="a space"),
        pytest.param([b"a, b"], id="a list"),
        pytest.param([b"http://a"], id="a URL"),
        pytest.param([b"a/b"], id="a path"),
        pytest.param([b"u@a"], id="a user"),
        pytest.param([b"a:b"], id="a port that is none"),
        pytest.param([b"[::1"], id="half an address"),
        pytest.param([b"[1.2.3.4]"], id="an older address in brackets"),
        pytest.param([b"\xe9"], id="not ASCII"),
    ],
)
@pytest.mark.parametrize("path", [b"/health", b"/nowhere", b"http://a/health"])
async def test_a_request_without_exactly_one_valid_host_is_refused(
    hosts: list[bytes], path: bytes
) -> None:
    async with running_server(FakeEngine()) as url, httpx.AsyncClient(base_url=url) as http:
        answer = await converse(url, request(b"GET " + path + b" HTTP/1.1", *hosts))
        assert "'host'" in assert_error(answer, 400, "host")["message"]
        assert answer.headers["connection"] == "close"
        assert (await http.get("/health")).status_code == 200


@pytest.mark.parametrize(
    "host", [b"a", b"a:80", b"a:", b"a_b.c-d:1", b"127.0.0.1:8000", b"[::1]:8000", b"%41"]
)
async def test_a_valid_host_is_accepted(host: bytes) -> None:
    async with running_server(FakeEngine()) as url:
        assert (await converse(url, request(b"GET /health HTTP/1.1", host))).status_code == 200


@pytest.mark.parametrize(
    ("hosts", "status"), [([], 200), ([b"a"], 200), ([b"a", b"b"], 400), ([b"a b"], 400)]
)
async def test_http_1_0_needs_no_host(hosts: list[bytes], status: int) -> None:
    async with running_server(FakeEngine()) as url:
        answer = await converse(url, request(b"GET /health HTTP/1.0", *hosts))

    assert answer.status_code == status


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://a/health", 200),
        (b"HTTP://a:80/health?x", 200),
        (b"https://[::1]:8000/health", 200),
        (b"http://a_b/health", 200),
        (b"http://a", 200),
        (b"http://a?x", 200),
        (b"http:///health", 400),
        (b"http://u:p@a/health", 400),
        (b"http://a:b/health", 400),
        (b"a:80", 400),
        (b"*", 404),
    ],
)
async def test_request_targets_in_all_forms(target: bytes, status: int) -> None:
    async with running_server(FakeEngine()) as url:
        answer = await converse(url, request(b"GET " + target + b" HTTP/1.1", b"a"))

    assert answer.status_code == status


@pytest.mark.parametrize(("origin", "status"), [(b"a.example", 400), (b"b.example", 403)])
async def test_the_host_of_an_absolute_target_overrides_the_header(
    origin: bytes, status: int
) -> None:
    async with running_server(FakeEngine()) as url:
        answer = await converse(
            url,
            b"POST http://a.example" + CHAT.encode() + b" HTTP/1.1\r\nHost: b.example\r\n"
            b"Origin: http://" + origin + b"\r\nContent-Length: 2\r\n\r\n{}",
        )

    assert (
        answer.status_code == status
    )  # the same origin passes, and the empty request is then refused


async def test_every_request_of_a_connection_needs_a_host() -> None:
    async with running_server(FakeEngine()) as url:
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(request(b"GET /health HTTP/1.1", b"a"))
        first = await with_timeout(reader.readuntil(b'{"status":"ok"}'))
        writer.write(request(b"GET /health HTTP/1.1"))
        second = await with_timeout(reader.read())
        writer.close()

    assert first.startswith(b"HTTP/1.1 200 ")
    assert second.startswith(b"HTTP/1.1 400 ")


@given(st.binary(max_size=12) | st.lists(st.sampled_from(LIKELY), max_size=10).map(bytes))
@example(b"[::1]:8000")
@example(b"[::1%1]")
@example(b"a\n")
def test_hosts_are_valid_exactly_by_the_rfc_grammar(value: bytes) -> None:
    try:
        check_host([(b"host", value)], "1.1")
    except BadRequest:
        assert not is_host(value)
    else:
        assert is_host(value)


@given(st.binary(max_size=30), st.sampled_from([b"", b"http://", b"HTTPS://", b"http://a"]))
def test_the_path_of_an_absolute_target_is_kept(rest: bytes, scheme: bytes) -> None:
    others = [(b"a", b"1"), (b"host", b"b"), (b"b", b"2")]
    try:
        target, headers = to_origin_form(scheme + rest, others)
    except BadRequest:
        assert scheme
        return
    if target == scheme + rest:
        assert headers == others
        return
    (name, host), *kept = headers
    assert target.startswith(b"/")
    assert (scheme + rest).endswith((host + target, host + target[1:]))
    assert (name, kept) == (b"host", [(b"a", b"1"), (b"b", b"2")])
    assert is_host(host)
