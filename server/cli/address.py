"""The addresses of servers."""

import errno
import socket
from contextlib import closing
from typing import Any

from proctor.server.config.section import ConfigError
from proctor.server.config.settings import Settings

ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Addresses of all interfaces, and the ones that a client can use instead."""

CURES = {
    errno.EADDRINUSE: "is in use by another process: stop it, or choose another port",
    errno.EACCES: "needs privileges: choose a port from 1024 on",
    errno.EADDRNOTAVAIL: "is of no network interface of this machine: choose another host",
}
"""What is wrong with an address that cannot be bound to, and what to do, by the error's number."""

NO_SUCH_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def url_of(host: str, port: int) -> str:
    """Return the URL by which a client on this machine reaches a server that listens there."""
    host = ANY_HOST.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def check_addresses(settings: Settings) -> None:
    """Check that the server can listen where it should, before it loads anything.

    Raises:
        ConfigError: if it cannot.
    """
    _check("port", settings.host, settings.port)
    auth = settings.auth
    if auth.admin_port is not None:
        _check("auth.admin_port", auth.admin_host, auth.admin_port)


def _check(setting: str, host: str, port: int) -> None:
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"{setting}: The host '{host}' cannot be resolved: {error}") from error
    for family, _, _, _, address in addresses:
        try:
            _bind(family, address)
        except OSError as error:
            if error.errno in NO_SUCH_FAMILY and len(addresses) > 1:
                continue  # such as ::1 of localhost, on a machine without IPv6
            cure = CURES.get(error.errno or 0, f"cannot be bound to: {error.strerror}")
            raise ConfigError(f"{setting}: {host}:{port} {cure}") from error


def _bind(family: socket.AddressFamily, address: Any) -> None:
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        # As asyncio binds: ports of connections that have just ended are free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind(address)
