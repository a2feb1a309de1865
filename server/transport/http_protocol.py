"""HTTP's protocol, with bounds on what stands around a request's body and on how long it takes."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Any, cast

import orjson
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from proctor.server.errors import ApiError, BadRequest, HeadersTooLarge, RequestTimeout
from proctor.server.transport.host_header import check_host, to_origin_form
from proctor.server.transport.middleware import request_id
from proctor.server.transport.slow_clients import ClientTransport, SlowClients

MAX_HEAD = 64 * 2**10
"""Bytes of a request's path and headers together."""

MAX_PIPELINED = 100
"""Requests that wait on one connection for the answers to those before them."""

HEAD_SECONDS = 60.0
"""For the path and the headers to come, from a connection's beginning or their first byte."""

LINGER_SECONDS = 30.0
"""So long what still comes of a request is thrown away, once it has been answered."""


class Stage(Enum):
    """What a connection is in the middle of receiving."""

    NOTHING = auto()
    HEAD = auto()
    BODY = auto()


class LimitedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself takes paths and headers of any size.

    What it has no event for, it gathers in silence, as it does the value of a
    header until its end: so the silence is bounded too, and so is the time.
    Whoever is answered before its request has come whole still hears the answer.
    """

    transport: ClientTransport

    _full = False
    _owes_turn = False
    _stage = Stage.NOTHING
    _head = 0
    _silent = 0
    _fault: ApiError | None = None
    _refusal: ApiError | None = None
    _alarm: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, slow: SlowClients, **kwargs: Any) -> None:
        """Stand on a new connection.

        Args:
            args: uvicorn's.
            slow: watches what waits for the client.
            kwargs: uvicorn's.
        """
        super().__init__(*args, **kwargs)
        self._slow = slow

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(ClientTransport(transport, self._slow, self._close))
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._stop_waiting()
        self._slow.discard(self.transport)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._refusal is not None or self.transport.is_closing():
            return
        self._silent += len(data)
        super().data_received(data)
        if self._silent > MAX_HEAD and self._refusal is None:
            self._refuse(_too_large())
        if self._stage is Stage.NOTHING and self._alarm is None and not self._answering:
            self._expect_head()

    def on_message_begin(self) -> None:
        """See httptools."""
        self._stage = Stage.HEAD
        self._head = self._silent = 0
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._stop_waiting()
        try:
            self._check_turn()
            check_host(self.headers, self.parser.get_http_version())
            self.url, self.headers[:] = to_origin_form(self.url, self.headers)
        except BadRequest as error:
            self._fault = error
            raise
        super().on_headers_complete()
        self._stage = Stage.BODY
        if self.expect_100_continue:
            # A client that is answered instead need not send its body, and may send anything.
            self.cycle.default_headers = [*self.cycle.default_headers, CLOSE_HEADER]

    def on_message_complete(self) -> None:
        """See httptools."""
        super().on_message_complete()
        self._stage = Stage.NOTHING
        self._head = self._silent = 0
        self._stop_waiting()
        self.cycle.default_headers = self.server_state.default_headers

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

    def pause_writing(self) -> None:
        """See asyncio. An answer goes on; the next request waits until this one is taken."""
        self._full = True

    def resume_writing(self) -> None:
        """See asyncio."""
        self._full = False
        if self._owes_turn:
            self._owes_turn = False
            self.on_response_complete()

    def on_response_complete(self) -> None:
        """See uvicorn. What an answered request still brings is taken, within its time."""
        if self._full and not self.transport.is_closing():
            self._owes_turn = True
            self.flow.pause_reading()
            return
        last = not self.pipeline
        super().on_response_complete()
        if self.transport.is_closing() or not last:
            return
        if self._refusal is not None:
            self._send_refusal(self._refusal)
        elif self._stage is Stage.BODY:
            self._wait(LINGER_SECONDS, self.transport.end)

    def send_400_response(self, msg: str) -> None:
        """See uvicorn, which calls this for whatever its parser cannot take."""
        self._refuse(self._fault or BadRequest("this is no HTTP/1.1 request"))

    def shutdown(self) -> None:
        """See uvicorn. Nothing is waited for but answers."""
        if self._answering:
            super().shutdown()
        else:
            self.transport.end()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_head(self) -> None:
        self._wait(HEAD_SECONDS, self._late)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_waiting()
        self._alarm = self.loop.call_later(seconds, then)

    def _stop_waiting(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _check_turn(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise BadRequest(
                f"over {MAX_PIPELINED} requests were sent before their turn: wait for the answers"
            )

    def _late(self) -> None:
        if self._answering:
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
        """Answer nothing more after the requests that came before."""
        self._refusal = error
        self._stop_waiting()
        earlier = self._answering
        if earlier and self._stage is Stage.BODY:
            earlier = self._drop_unread()
        if not earlier and not self.transport.is_closing():
            self._send_refusal(error)

    def _drop_unread(self) -> bool:
        """Give up the request whose body is at fault; whether there are others before it."""
        cycle = self.cycle
        cycle.disconnected = True
        cycle.message_event.set()
        if self.pipeline:
            self.pipeline.popleft()
            return True
        if cycle.response_started:
            self.transport.close()
        return False

    def _send_refusal(self, error: ApiError) -> None:
        self.transport.write(_response(error))
        self.transport.close()

    def _close(self) -> None:
        """Close the connection, or all but what a client is still sending.

        A connection that is closed on unread bytes is reset, and the answer is lost with it.
        """
        if self._refusal is None and self._stage is Stage.NOTHING:
            self.transport.end()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._wait(LINGER_SECONDS, self.transport.end)


def make_http(send_timeout: float) -> type[asyncio.Protocol]:
    """What uvicorn makes a server's protocols with.

    Args:
        send_timeout: seconds after which a client that takes nothing is let go.
    """
    return cast(
        "type[asyncio.Protocol]", partial(LimitedHttpProtocol, slow=SlowClients(send_timeout))
    )


def _response(error: ApiError) -> bytes:
    body = orjson.dumps(error.to_json())
    lines = (
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"x-request-id: " + request_id(None).encode(),
        b"connection: close",
    )
    return STATUS_LINE[error.status] + b"\r\n".join([*lines, b"", body])


def _too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"the path and headers are over {MAX_HEAD} bytes: send less")
