"""HTTP's protocol, with a bound on what stands around a request's body."""

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.errors import ApiError, BadRequest, HeadTooLarge
from server.middleware import request_id

MAX_HEAD = 64 * 2**10
"""Bytes of a request's path and headers together."""

LINGER_SECONDS = 1.0
"""So long what still comes is thrown away, after a refusal."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which by itself takes paths and headers of any size.

    What it has no event for, it gathers in silence, as it does the value of a
    header until its end: so the silence is bounded too.
    """

    _head = 0
    _silent = 0
    _refusal: ApiError | None = None

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._refusal is not None:
            return
        self._silent += len(data)
        super().data_received(data)
        if self._silent > MAX_HEAD and self._refusal is None:
            self._refuse(_too_large())

    def on_message_begin(self) -> None:
        """See httptools."""
        self._head = self._silent = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """See httptools."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools. The headers after a body count as well."""
        self._count(len(name) + len(value) + len(b": \r\n"))
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._silent = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """See uvicorn, which calls this for whatever its parser cannot take."""
        large = self._head > MAX_HEAD
        self._refuse(_too_large() if large else BadRequest("this is no HTTP/1.1 request"))

    def _count(self, size: int) -> None:
        self._silent = 0
        self._head += size
        if self._head > MAX_HEAD:
            raise _too_large()

    def _refuse(self, error: ApiError) -> None:
        self._refusal = error
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        self.transport.write(_response(error))
        # A connection closed on what is still coming is reset, and the answer is lost with it.
        self.flow.resume_reading()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


def _response(error: ApiError) -> bytes:
    body = orjson.dumps(error.to_json())
    lines = (
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"x-request-id: " + request_id(None).encode(),
        b"connection: close",
    )
    return STATUS_LINE[error.status] + b"\r\n".join([*lines, b"", body])


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(f"the path and headers are over {MAX_HEAD} bytes: send less")
