"""Validation of the request's host (RFC 9112, section 3.2)."""

import re
from collections.abc import Sequence
from ipaddress import IPv6Address

from proctor.server.errors import BadRequest

Header = tuple[bytes, bytes]

HOST = b"host"
HOST_OPTIONAL = ("0.9", "1.0")
"""Versions of HTTP that do not require the `Host` header."""

AUTHORITY = re.compile(
    rb"(\[(?P<address>[0-9a-f:.]+)\]|([a-z0-9._~!$&'()*+,;=-]|%[0-9a-f]{2})+)(:[0-9]*)?",
    re.IGNORECASE,
)
ABSOLUTE_FORM = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)


def check_host(headers: Sequence[Header], version: str) -> None:
    """Check that a request has exactly one valid `Host` header, if its HTTP version requires one.

    Args:
        headers: the request headers, with lowercase names.
        version: the HTTP version, such as "1.1".

    Raises:
        BadRequest: if the header is missing, repeated or invalid.
    """
    hosts = [value for name, value in headers if name == HOST]
    if not hosts and version in HOST_OPTIONAL:
        return
    if len(hosts) != 1:
        message = f"Expected exactly one 'host' header, got {len(hosts)}."
        raise BadRequest(message, param="host")
    if not _is_authority(hosts[0]):
        raise BadRequest(
            "Invalid 'host' header. Expected a host name or an IP address, optionally with a port.",
            param="host",
        )


def to_origin_form(target: bytes, headers: Sequence[Header]) -> tuple[bytes, list[Header]]:
    """Convert a request target in absolute form to origin form.

    A target in absolute form is a whole URL, as clients send it to proxies. Its host
    replaces the `Host` header.

    Args:
        target: the request target as received.
        headers: the request headers, with lowercase names.

    Returns:
        The target in origin form, and the headers.

    Raises:
        BadRequest: if the host of the target is invalid.
    """
    absolute = ABSOLUTE_FORM.fullmatch(target)
    if absolute is None:
        return target, [*headers]
    host, path = absolute.groups()
    if not _is_authority(host):
        raise BadRequest("Invalid host in the request target. User information is not allowed.")
    others = [header for header in headers if header[0] != HOST]
    return path if path.startswith(b"/") else b"/" + path, [(HOST, host), *others]


def _is_authority(host: bytes) -> bool:
    match = AUTHORITY.fullmatch(host)
    if match is None:
        return False
    address = match["address"]
    if address is None:
        return True
    try:
        IPv6Address(address.decode())
    except ValueError:
        return False
    return True
