"""What goes around every request, as plain ASGI: nothing is buffered, disconnects get through."""

import re
import uuid
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proctor.server.accounting.ledger.recorder import Books
from proctor.server.telemetry.metrics import Meter, Metrics
from proctor.server.telemetry.tracing import Tracing

UNSAFE = re.compile(r"[^A-Za-z0-9._:-]")
MAX_REQUEST_ID = 128


def request_id(given: str | None) -> str:
    """The client's own id, made safe to echo, or a fresh one."""
    return UNSAFE.sub("", given or "")[:MAX_REQUEST_ID] or uuid.uuid4().hex


class RequestIds:
    """Echoes `x-request-id`, or makes one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        echoed = request_id(Headers(scope=scope).get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = echoed

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = echoed
            await send(message)

        await self._app(scope, receive, send_with_id)


class Metered:
    """Measures every request to some paths, from its first byte to its last."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        books: Books,
        tracing: Tracing,
        paths: Collection[str],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._books = books
        self._tracing = tracing
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        trace = self._tracing.begin(scope)
        meter = Meter(self._metrics, self._books, scope["state"]["request_id"], trace)
        scope["state"]["meter"] = meter

        async def send_noting_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                meter.status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting_status)
        finally:
            meter.close()


class Heads:
    """Answers `HEAD` as `GET`, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_no_body(message: Message) -> None:
            bodied = message["type"] == "http.response.body"
            await send({**message, "body": b""} if bodied else message)

        await self._app({**scope, "method": "GET"}, receive, send_no_body)
