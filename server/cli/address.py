"""The addresses of servers."""

ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Addresses of all interfaces, and the ones that a client can use instead."""


def url_of(host: str, port: int) -> str:
    """Return the URL by which a client on this machine reaches a server that listens there."""
    host = ANY_HOST.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
