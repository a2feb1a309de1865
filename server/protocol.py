"""HTTP's protocol, with a bound on what stands around a request's body."""

import asyncio

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.authority import check_host, to_origin_form
from server.errors import ApiError, BadRequest, HeadTooLarge, RequestTimeout
from server.middleware import request_id

MAX_HEAD = 64 * 2**10
"""Bytes of a request's path and headers together."""

HEAD_SECONDS = 60.0
"""For the path and the headers to come, from a connection's beginning or their first byte."""

LINGER_SECONDS = 1.0
"""So long what still comes is thrown away, after a refusal."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which by itself takes paths and headers of any size.

    What it has no event for, it gathers in silence, as it does the value of a
    header until its end: so the silence is bounded too, and so is the time.
    """

    _head = 0
    _silent = 0
    _fault: ApiError | None = None
    _refusal: ApiError | None = None
    _alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._stop_waiting()
        super().connection_lost(exc)

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
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._stop_waiting()
        try:
            check_host(self.headers, self.parser.get_http_version())
            self.url, self.headers[:] = to_origin_form(self.url, self.headers)
        except BadRequest as error:
            self._fault = error
            raise
        super().on_headers_complete()

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
        self._refuse(self._fault or BadRequest("this is no HTTP/1.1 request"))

    def _expect_head(self) -> None:
        self._stop_waiting()
        self._alarm = self.loop.call_later(HEAD_SECONDS, self._late)

    def _stop_waiting(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._expect_head()  # it was sent before its turn
        elif self._head or self._silent:
            self._refuse(RequestTimeout(f"the headers did not come within {HEAD_SECONDS:g} s"))
        else:
            self.transport.close()

    def _count(self, size: int) -> None:
        self._silent = 0
        self._head += size
        if self._head > MAX_HEAD:
            self._fault = _too_large()
            raise self._fault

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
