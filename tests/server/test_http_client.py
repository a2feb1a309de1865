"""What the HTTP clients share: connections, proxies, and requests that are sent again."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from proctor.server import http_client
from proctor.server.http_client import LARGE_BYTES, new_session, send
from tests.waiting import PATIENCE

TIMEOUT = aiohttp.ClientTimeout(total=PATIENCE)
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def echo(request: web.BaseRequest) -> web.Response:
    """Respond with the URL, as a proxy is sent it, and its credentials."""
    key = request.headers.get("proxy-authorization", "")
    return web.Response(text=f"{request.raw_path} {key}".strip())


async def fetch(url: str) -> str:
    async with (
        new_session(url, TIMEOUT) as session,
        await send(session, "GET", url, headers={}) as response,
    ):
        return await response.text()


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
@pytest.mark.parametrize("address", ["http://127.0.0.1:{}", "127.0.0.1:{}"])
async def test_the_environments_proxy_is_used(
    monkeypatch: pytest.MonkeyPatch, name: str, address: str
) -> None:
    async with RawTestServer(echo) as proxy:
        monkeypatch.setenv(name, address.format(proxy.port))
        assert await fetch("http://upstream.test/v1") == "http://upstream.test/v1"


async def test_a_proxy_gets_its_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawTestServer(echo) as proxy:
        monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{proxy.port}")
        assert (await fetch("http://upstream.test/")).endswith("Basic bWU6c2VjcmV0")


async def test_another_kind_of_proxy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://proxy.test")
    with pytest.raises(ValueError, match="not socks5"):
        await fetch("http://upstream.test/")


@pytest.mark.parametrize("none", ["127.0.0.1", "127.0.0.1:{}", "*"])
async def test_no_proxy_is_used_where_the_environment_excludes_it(
    monkeypatch: pytest.MonkeyPatch, none: str
) -> None:
    async with RawTestServer(echo) as server:
        monkeypatch.setenv("http_proxy", "http://proxy.test")
        monkeypatch.setenv("no_proxy", none.format(server.port))
        assert await fetch(f"http://127.0.0.1:{server.port}/v1") == "/v1"


@asynccontextmanager
async def dropping(first: int) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve requests; the first are read, and their connections closed without a response."""
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
            bodies.append(await reader.readexactly(int(length)))
            if len(bodies) > first:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", bodies


@pytest.mark.parametrize("body", [b"small", b"." * LARGE_BYTES])
async def test_a_request_is_sent_again_once(body: bytes) -> None:
    async with (
        dropping(1) as (url, bodies),
        new_session(url, TIMEOUT) as session,
        await send(session, "POST", url, body=body, headers={}) as response,
    ):
        assert response.status == 200
    assert bodies == [body] * 2

    async with dropping(2) as (url, bodies), new_session(url, TIMEOUT) as session:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await send(session, "POST", url, body=body, headers={})
    assert bodies == [body] * 2


def write_certificate(folder: Path) -> Path:
    """Write a certificate for 127.0.0.1 that only it vouches for, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "upstream.test")])
    address = x509.IPAddress(ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = Encoding.PEM
    path = folder / "certificate.pem"
    path.write_bytes(
        certificate.public_bytes(pem) + key.private_bytes(pem, PrivateFormat.PKCS8, NoEncryption())
    )
    return path


async def test_the_certificates_that_the_environment_names_are_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    server = RawTestServer(echo)
    await server.start_server(ssl=context)
    async with server:
        url = f"https://127.0.0.1:{server.port}/"
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await fetch(url)

        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        http_client._certificates.cache_clear()
        try:
            assert await fetch(url) == "/"
        finally:
            http_client._certificates.cache_clear()
