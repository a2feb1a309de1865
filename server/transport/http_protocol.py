"""uvicorn's HTTP protocol with limits on the size and duration of a request's path and headers."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Any, cast

import orjson
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from proctor.server.errors import ApiError, BadRequest, HeadersTooLarge, RequestTimeout
from proctor.server.schemas.responses import to_error
from proctor.server.transport.host_header import check_host, to_origin_form
from proctor.server.transport.middleware import request_id
from proctor.server.transport.slow_clients import ClientTransport, SlowClients

MAX_HEAD = 64 * 2**10
"""The maximum size in bytes of a request's path and headers together."""

MAX_PIPELINED = 100
"""The maximum number of requests on one connection that wait for earlier responses."""

HEAD_SECONDS = 60.0
"""The time limit for receiving path and headers, from the start of the connection or their first
byte."""

LINGER_SECONDS = 30.0
"""The time for which the rest of a request is received and discarded after its response."""


class Stage(Enum):
    """The part of a request that a connection is receiving."""

    NOTHING = auto()
    HEAD = auto()
    BODY = auto()


class LimitedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself does not limit the size of path and headers.

    The parser collects some data without calling back, such as the value of a header
    until it is complete. Therefore the data received since the last callback is limited
    too, and so is the time. A client that gets its response before its request is
    complete can still read the response.
    """

    transport: ClientTransport

    _writing_paused = False
    _completion_deferred = False
    _stage = Stage.NOTHING
    _head_size = 0
    _size_since_callback = 0
    _parse_error: ApiError | None = None
    _rejection: ApiError | None = None
    _timer: asyncio.TimerHandle | None = None

    def __init__(
        self,
        *args: Any,
        slow_clients: SlowClients,
        on_close: Callable[[], None],
        **kwargs: Any,
    ) -> None:
        """Initialize the protocol of a new connection.

        Args:
            args: uvicorn's positional arguments.
            slow_clients: watches the data that is buffered for the client.
            on_close: called when the connection is closed.
            kwargs: uvicorn's keyword arguments.
        """
        super().__init__(*args, **kwargs)
        self._slow_clients = slow_clients
        self._on_close = on_close

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(ClientTransport(transport, self._slow_clients, self._close))
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._slow_clients.discard(self.transport)
        super().connection_lost(exc)
        self._on_close()

    def data_received(self, data: bytes) -> None:
        if self._rejection is not None or self.transport.is_closing():
            return
        self._size_since_callback += len(data)
        super().data_received(data)
        if self._size_since_callback > MAX_HEAD and self._rejection is None:
            self._reject(_too_large())
        if self._stage is Stage.NOTHING and self._timer is None and not self._responding:
            self._expect_head()

    def on_message_begin(self) -> None:
        self._stage = Stage.HEAD
        self._head_size = self._size_since_callback = 0
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop_timer()
        try:
            self._check_pipeline()
            check_host(self.headers, self.parser.get_http_version())
            self.url, self.headers[:] = to_origin_form(self.url, self.headers)
        except BadRequest as error:
            self._parse_error = error
            raise
        super().on_headers_complete()
        self._stage = Stage.BODY
        if self.expect_100_continue:
            # A client that gets a response instead of "100 Continue" need not send its body, so
            # that what it sends next is ambiguous.
            self.cycle.default_headers = [*self.cycle.default_headers, CLOSE_HEADER]

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._stage = Stage.NOTHING
        self._head_size = self._size_since_callback = 0
        self._stop_timer()
        self.cycle.default_headers = self.server_state.default_headers

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count the header, or the trailer after a body, and handle it."""
        self._count_head(len(name) + len(value) + len(b": \r\n"))
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._size_since_callback = 0
        super().on_body(body)

    def pause_writing(self) -> None:
        """Let the response go on, but defer the next request until the client has read it."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._completion_deferred:
            self._completion_deferred = False
            self.on_response_complete()

    def on_response_complete(self) -> None:
        """Go on to the next request, or receive the rest of this one within its time."""
        if self._writing_paused and not self.transport.is_closing():
            self._completion_deferred = True
            self.flow.pause_reading()
            return
        last = not self.pipeline
        super().on_response_complete()
        if self.transport.is_closing() or not last:
            return
        if self._rejection is not None:
            self._send_rejection(self._rejection)
        elif self._stage is Stage.BODY:
            self._start_timer(LINGER_SECONDS, self.transport.end)

    def send_400_response(self, msg: str) -> None:
        """Reject a request that uvicorn's parser cannot parse."""
        self._reject(self._parse_error or BadRequest("Invalid HTTP/1.1 request."))

    def shutdown(self) -> None:
        """Close the connection, after the response if there is one in progress."""
        if self._responding:
            super().shutdown()
        else:
            self.transport.end()

    @property
    def _responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_head(self) -> None:
        self._start_timer(HEAD_SECONDS, self._on_head_timeout)

    def _start_timer(self, seconds: float, callback: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, callback)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_pipeline(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise BadRequest(
                f"More than {MAX_PIPELINED} pipelined requests. Wait for earlier responses before "
                "sending more."
            )

    def _on_head_timeout(self) -> None:
        if self._responding:
            self._expect_head()  # the request was pipelined
        elif self._head_size or self._size_since_callback:
            message = f"The request headers were not received within {HEAD_SECONDS:g} s."
            self._reject(RequestTimeout(message))
        else:
            self.transport.close()

    def _count_head(self, size: int) -> None:
        self._size_since_callback = 0
        self._head_size += size
        if self._head_size > MAX_HEAD:
            self._parse_error = _too_large()
            raise self._parse_error

    def _reject(self, error: ApiError) -> None:
        """Send an error once earlier requests have their responses, and close the connection."""
        self._rejection = error
        self._stop_timer()
        earlier = self._responding
        if earlier and self._stage is Stage.BODY:
            earlier = self._drop_unread()
        if not earlier and not self.transport.is_closing():
            self._send_rejection(error)

    def _drop_unread(self) -> bool:
        """Drop the request whose body is invalid; return whether there are requests before it."""
        cycle = self.cycle
        cycle.disconnected = True
        cycle.message_event.set()
        if self.pipeline:
            self.pipeline.popleft()
            return True
        if cycle.response_started:
            self.transport.close()
        return False

    def _send_rejection(self, error: ApiError) -> None:
        self.transport.write(_response(error))
        self.transport.close()

    def _close(self) -> None:
        """Close the connection, but go on to receive what the client is still sending.

        Closing a connection with unread data resets it, and the response is lost.
        """
        if self._rejection is None and self._stage is Stage.NOTHING:
            self.transport.end()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._start_timer(LINGER_SECONDS, self.transport.end)


def make_http(
    send_timeout: float, on_close: Callable[[], None] = lambda: None
) -> type[asyncio.Protocol]:
    """Return the protocol factory for uvicorn's `http` option.

    Args:
        send_timeout: seconds after which a client that reads nothing is disconnected.
        on_close: called whenever a connection is closed.
    """
    slow_clients = SlowClients(send_timeout)
    factory = partial(LimitedHttpProtocol, slow_clients=slow_clients, on_close=on_close)
    return cast("type[asyncio.Protocol]", factory)


def _response(error: ApiError) -> bytes:
    body = orjson.dumps(to_error(error))
    lines = (
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"x-request-id: " + request_id(None).encode(),
        b"connection: close",
    )
    return STATUS_LINE[error.status] + b"\r\n".join([*lines, b"", body])


def _too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"The path and headers exceed the limit of {MAX_HEAD} bytes.")
