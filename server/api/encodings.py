"""Decompression of request bodies, bounded by the size limit."""

import zlib
from collections.abc import Sequence

from proctor.server.errors import BadRequest, UnsupportedEncoding

SUPPORTED = ("gzip",)
GZIP_NAMES = ("gzip", "x-gzip")
GZIP = 16 + zlib.MAX_WBITS
"""zlib's `wbits` for gzip headers and checksums."""


class Identity:
    """A body that is not compressed."""

    def decompress(self, data: bytes, maximum: int) -> bytes:
        """Return the data unchanged."""
        return data

    def close(self) -> None:
        """Accept the end of the body, which may be anywhere."""


class Gzip:
    """A body compressed with gzip, in one or several members."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(GZIP)
        self._inside = False

    def decompress(self, data: bytes, maximum: int) -> bytes:
        """Return the next decompressed bytes, at most `maximum` + 1.

        Raises:
            BadRequest: if the data is not valid gzip.
        """
        out = bytearray()
        while data and len(out) <= maximum:
            try:
                out += self._member.decompress(data, maximum + 1 - len(out))
            except zlib.error:
                message = "The request body is not valid gzip, as its 'content-encoding' says."
                raise BadRequest(message) from None
            self._inside = not self._member.eof
            if self._inside:
                data = self._member.unconsumed_tail
            else:
                data, self._member = self._member.unused_data, zlib.decompressobj(GZIP)
        return bytes(out)

    def close(self) -> None:
        """Check that the body is complete.

        Raises:
            BadRequest: if it is truncated.
        """
        if self._inside:
            raise BadRequest("The gzip data of the request body is truncated.")


def decoder(encodings: Sequence[str]) -> Identity | Gzip:
    """Return a decoder for a body.

    Args:
        encodings: the values of the `Content-Encoding` headers.

    Raises:
        UnsupportedEncoding: if there are several encodings, or one other than gzip.
    """
    names = [name.strip().lower() for value in encodings for name in value.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if not names:
        return Identity()
    if len(names) > 1 or names[0] not in GZIP_NAMES:
        raise UnsupportedEncoding(
            f"Unsupported 'content-encoding'. Supported values are {', '.join(SUPPORTED)} and "
            "identity.",
            param="content-encoding",
            headers={"accept-encoding": ", ".join(SUPPORTED)},
        )
    return Gzip()
