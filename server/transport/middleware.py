"""What goes around every request, as plain ASGI: nothing is buffered, disconnects get through."""

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

UNSAFE = re.compile(r"[^A-Za-z0-9._:-]")
MAX_REQUEST_ID = 128


def request_id(given: str | None) -> str:
    """The client's own id, made safe to echo, or a fresh one."""
    return UNSAFE.sub("", given or "")[:MAX_REQUEST_ID] or uuid.uuid4().hex


class RequestIdMiddleware:
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


class HeadMiddleware:
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
