"""The HTTP response of a stream of server-sent events."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from proctor.server.transport.middleware import SEND_BODY

HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""Headers that keep proxies from storing or buffering the events."""


class SseResponse(Response):
    """A response of server-sent events, with heartbeats while there are none.

    Disconnects clients that stop reading.

    Attributes:
        body_iterator: yields the events, any number at a time.
        heartbeat: returns the event that keeps an idle connection open.
        heartbeat_seconds: the time without events after which a heartbeat is sent; infinite if
            none are sent.
        send_timeout: the time in seconds after which a client that accepts nothing is
            disconnected.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        heartbeat: Callable[[], bytes],
        heartbeat_seconds: float,
        send_timeout: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Create a response.

        Args:
            events: see `body_iterator`.
            heartbeat: see the attribute.
            heartbeat_seconds: see the attribute; 0 sends none.
            send_timeout: see the attribute.
            headers: further headers.
        """
        self.body_iterator = events
        self.heartbeat = heartbeat
        self.heartbeat_seconds = heartbeat_seconds or math.inf
        self.send_timeout = send_timeout
        self.status_code = 200
        self.background = None
        self.init_headers(HEADERS | {**(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, until the client disconnects or stops reading."""
        stream = EventStream(self, send, scope.get("state", {}).get(SEND_BODY, send))
        leaving = asyncio.create_task(disconnected(receive))
        try:
            await asyncio.wait({stream.task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            await stream.stop()
        if not stream.task.cancelled():
            stream.task.result()


class EventStream:
    """A task that sends the events of a response, and the timer beside it.

    Attributes:
        task: the task; cancelled if the client accepts nothing for too long.
    """

    def __init__(self, response: SseResponse, send: Send, send_body: Send) -> None:
        """Start to send.

        Args:
            response: what to send.
            send: sends the first message of the response.
            send_body: sends those with its body.
        """
        self._response = response
        self._send_start = send
        self._send_body = send_body
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._loop.time()
        self._is_sending = False
        self._heartbeat: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(self._seconds_left(), self._check)
        self.task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop to send, and wait until the events have been closed."""
        self._stop_heartbeats()
        self.task.cancel()
        await asyncio.wait({self.task})

    def _stop_heartbeats(self) -> None:
        self._timer.cancel()
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    async def _run(self) -> None:
        response = self._response
        start = {"status": response.status_code, "headers": response.raw_headers}
        await self._send(self._send_start, {"type": "http.response.start", **start})
        async with aclosing(response.body_iterator) as events:
            async for event in events:
                message = {"type": "http.response.body", "body": event, "more_body": True}
                await self._send(self._send_body, message)
        self._stop_heartbeats()
        end = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(self._send_body, end)

    async def _send(self, send: Send, message: dict[str, object]) -> None:
        self._sent_at, self._is_sending = self._loop.time(), True
        await send(message)
        self._is_sending = False

    def _seconds_left(self) -> float:
        """Return the time until a heartbeat or, while sending, the timeout is due."""
        response = self._response
        limit = response.send_timeout if self._is_sending else response.heartbeat_seconds
        # At least once per timeout, as what is sent meanwhile may be what the client rejects.
        return min(self._sent_at + limit - self._loop.time(), response.send_timeout)

    def _check(self) -> None:
        if self._seconds_left() <= 0:
            if self._is_sending:
                self.task.cancel()
                return
            self._heartbeat = self._loop.create_task(self._send_heartbeat())
            self._sent_at = self._loop.time()
        self._timer = self._loop.call_later(self._seconds_left(), self._check)

    async def _send_heartbeat(self) -> None:
        event = self._response.heartbeat()
        message = {"type": "http.response.body", "body": event, "more_body": True}
        await self._send(self._send_body, message)


async def disconnected(receive: Receive) -> None:
    """Wait until the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
