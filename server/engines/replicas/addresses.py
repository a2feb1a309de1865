"""Finds replicas: every address that the host names of the URLs resolve to is one."""

import asyncio
import socket
from collections.abc import Iterable

from yarl import URL

from proctor.server.engines.replicas.client import Address


async def resolve(urls: Iterable[str]) -> dict[str, Address]:
    """Return the addresses of the replicas, by the names that they have in logs and metrics.

    Names that cannot be resolved, as a service without ready pods, have no addresses.
    """
    addresses: dict[str, Address] = {}
    for url in map(URL, urls):
        for ip in await _lookup(url):
            netloc = f"[{ip}]:{url.port}" if ":" in ip else f"{ip}:{url.port}"
            path = url.path.rstrip("/")
            addresses[netloc] = Address(f"{url.scheme}://{netloc}{path}", url.authority)
    return addresses


async def _lookup(url: URL) -> list[str]:
    """Return the IP addresses of a URL's host, those of version 4 if it has any."""
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(
            url.host, url.port, type=socket.SOCK_STREAM
        )
    except socket.gaierror:
        return []
    # A host that has both is one replica, not two.
    families = {info[0] for info in infos}
    family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    return sorted({str(info[4][0]) for info in infos if info[0] == family})
