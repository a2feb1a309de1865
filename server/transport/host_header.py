"""Which host a request is for (RFC 9112, section 3.2)."""

import re
from collections.abc import Sequence
from ipaddress import IPv6Address

from proctor.server.errors import BadRequest

Header = tuple[bytes, bytes]

HOST = b"host"
BEFORE_HOST = ("0.9", "1.0")
"""Versions of HTTP whose requests need no `Host`."""

AUTHORITY = re.compile(
    rb"(\[(?P<address>[0-9a-f:.]+)\]|([a-z0-9._~!$&'()*+,;=-]|%[0-9a-f]{2})+)(:[0-9]*)?",
    re.IGNORECASE,
)
ABSOLUTE_FORM = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)


def check_host(headers: Sequence[Header], version: str) -> None:
    """Return if a request names one host, or none in a version of HTTP that asks for none.

    Args:
        headers: the request's, with names in lower case.
        version: of HTTP, as in "1.1".

    Raises:
        BadRequest: if it names none, several, or what is no host.
    """
    hosts = [value for name, value in headers if name == HOST]
    if not hosts and version in BEFORE_HOST:
        return
    if len(hosts) != 1:
        raise BadRequest(f"a request must have one header 'host', not {len(hosts)}", param="host")
    if not _is_authority(hosts[0]):
        raise BadRequest(
            "the header 'host' must be a name or an address, with or without a port", param="host"
        )


def to_origin_form(target: bytes, headers: Sequence[Header]) -> tuple[bytes, list[Header]]:
    """Return a request's target without a host, and its headers with the host that was in it.

    A target may be a whole URL, as clients send it to proxies. The host in it holds then, over
    that of the header.

    Args:
        target: the request's, as it came.
        headers: the request's, with names in lower case.

    Raises:
        BadRequest: if the target's host is none.
    """
    absolute = ABSOLUTE_FORM.fullmatch(target)
    if absolute is None:
        return target, [*headers]
    host, path = absolute.groups()
    if not _is_authority(host):
        raise BadRequest("the URL of the request must name a host, and no user")
    others = [header for header in headers if header[0] != HOST]
    return path if path.startswith(b"/") else b"/" + path, [(HOST, host), *others]


def _is_authority(host: bytes) -> bool:
    found = AUTHORITY.fullmatch(host)
    if found is None:
        return False
    address = found["address"]
    if address is None:
        return True
    try:
        IPv6Address(address.decode())
    except ValueError:
        return False
    return True
