"""Bodies that come compressed, let out no further than the limit."""

import zlib
from collections.abc import Sequence

from proctor.server.errors import BadRequest, UnsupportedEncoding

SUPPORTED = ("gzip",)
GZIP_NAMES = ("gzip", "x-gzip")
GZIP = 16 + zlib.MAX_WBITS
"""zlib's sign for gzip's header and checksum."""


class Identity:
    """A body as it is."""

    def push(self, data: bytes, most: int) -> bytes:
        """The body's next bytes."""
        return data

    def close(self) -> None:
        """It can end anywhere."""


class Gzip:
    """Lets gzip's bytes out as they come; there can be several members after each other."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(GZIP)
        self._inside = False

    def push(self, data: bytes, most: int) -> bytes:
        """The body's next bytes, but no more than one beyond `most`.

        Raises:
            BadRequest: if it is no gzip.
        """
        out = bytearray()
        while data and len(out) <= most:
            try:
                out += self._member.decompress(data, most + 1 - len(out))
            except zlib.error:
                raise BadRequest("the body is not the gzip that its header promises") from None
            self._inside = not self._member.eof
            if self._inside:
                data = self._member.unconsumed_tail
            else:
                data, self._member = self._member.unused_data, zlib.decompressobj(GZIP)
        return bytes(out)

    def close(self) -> None:
        """See that the body has come to its end.

        Raises:
            BadRequest: if it has not.
        """
        if self._inside:
            raise BadRequest("the body's gzip breaks off before its end")


def decoder(encodings: Sequence[str]) -> Identity | Gzip:
    """What lets a body out of these encodings.

    Args:
        encodings: the values of its headers `Content-Encoding`.

    Raises:
        UnsupportedEncoding: if it is any other than gzip, or several.
    """
    named = [name.strip().lower() for value in encodings for name in value.split(",")]
    named = [name for name in named if name not in ("", "identity")]
    if not named:
        return Identity()
    if len(named) > 1 or named[0] not in GZIP_NAMES:
        raise UnsupportedEncoding(
            f"the body can come plain or as {' or '.join(SUPPORTED)}, and no other "
            "'content-encoding'",
            param="content-encoding",
            headers={"accept-encoding": ", ".join(SUPPORTED)},
        )
    return Gzip()
