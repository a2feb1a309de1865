"""Finds replicas: every address that the host names of the URLs resolve to is one."""

import asyncio
import socket
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from proctor.server.engines.replicas.client import Address

PORTS = {"http": 80, "https": 443}


async def resolve(urls: Iterable[str]) -> dict[str, Address]:
    """Return the addresses of the replicas, by the names that they have in logs and metrics.

    Names that cannot be resolved, as a service without ready pods, have no addresses.
    """
    addresses: dict[str, Address] = {}
    for url in map(urlsplit, urls):
        port = url.port or PORTS[url.scheme]
        name = url.hostname if url.scheme == "https" else None
        for ip in await _lookup(url, port):
            netloc = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
            addresses[netloc] = Address(f"{url.scheme}://{netloc}", url.netloc, name)
    return addresses


async def _lookup(url: SplitResult, port: int) -> list[str]:
    """Return the IP addresses of a URL's host, those of version 4 if it has any."""
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(
            url.hostname, port, type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError):  # the latter for labels that no name can have
        return []
    # A host that has both is one replica, not two.
    families = {info[0] for info in infos}
    family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    return sorted({str(info[4][0]) for info in infos if info[0] == family})
