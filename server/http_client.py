"""What the HTTP clients of other servers share.

They are aiohttp's, which closes a connection without awaiting anything: however a request is
cancelled, no socket stays open. httpx's pool awaits each close, and a task that is cancelled
meanwhile (`asyncio.Task.cancel`) drops the remaining connections without closing them.
"""

import ssl
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from io import BytesIO
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx

KEEPALIVE_SECONDS = 2.0
"""How long an idle connection is reused; vLLM's server closes it after five seconds."""

CONNECT_SECONDS = 10.0
"""The timeout of a connection's establishment."""

LARGE_BYTES = 2**20
JSON = {"content-type": "application/json"}


def new_connector(certificates: ssl.SSLContext | None = None) -> aiohttp.TCPConnector:
    """Return connections of the running event loop, without limits of their own.

    Args:
        certificates: which certificates are trusted; None for the system's.
    """
    return aiohttp.TCPConnector(
        limit=0, keepalive_timeout=KEEPALIVE_SECONDS, ssl=certificates or True
    )


def new_session(url: str, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
    """Return a session of the running event loop with a server that the settings name.

    The environment's proxies (`http_proxy`, `https_proxy`, `all_proxy`, `no_proxy`) and trusted
    certificates (`SSL_CERT_FILE`, `SSL_CERT_DIR`; otherwise certifi's) apply to it.

    Args:
        url: the server's URL.
        timeout: the timeouts of its requests.

    Raises:
        ValueError: if the proxy is not an HTTP proxy.
    """
    return aiohttp.ClientSession(
        connector=new_connector(_certificates() if url.startswith("https:") else None),
        timeout=timeout,
        proxy=_proxy_for(url),
    )


async def send(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str],
    allow_redirects: bool = True,
    server_hostname: str | None = None,
) -> aiohttp.ClientResponse:
    """Send a request, again if an idle connection was closed at the moment of its reuse.

    Args:
        session: the connections.
        method: the HTTP method.
        url: the URL.
        body: the body, if there is one.
        headers: further headers than the session's.
        allow_redirects: whether redirects are followed.
        server_hostname: the name that the certificate must have, if not the URL's.

    Raises:
        aiohttp.ClientError: if there is no response.
    """
    for is_last in (False, True):
        try:
            return await session.request(
                method,
                url,
                # Not as bytes if large: aiohttp would send all of it at once.
                data=body if body is None or len(body) < LARGE_BYTES else BytesIO(body),
                headers=headers,
                allow_redirects=allow_redirects,
                server_hostname=server_hostname,
            )
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if is_last:
                raise
    raise AssertionError("unreachable")


def is_success(status: int) -> bool:
    """Return whether a response's status is one of success (2xx)."""
    return HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES


@cache
def _certificates() -> ssl.SSLContext:
    """Return the trusted certificates, which take a while to read."""
    return httpx.create_ssl_context()


def _proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for a URL.

    Not by aiohttp's `trust_env`, which reads the environment in a thread for each request, has no
    `all_proxy`, and sends credentials from `~/.netrc`.

    Raises:
        ValueError: if it is not an HTTP proxy.
    """
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    scheme, separator, _ = proxy.partition("://")
    if not separator:
        return f"http://{proxy}"
    if scheme not in ("http", "https"):
        raise ValueError(f"the environment's proxy must be an HTTP proxy, not {scheme}")
    return proxy
