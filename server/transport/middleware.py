"""Pure ASGI middleware, which buffers nothing and passes disconnects on."""

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

UNSAFE = re.compile(r"[^A-Za-z0-9._:-]")
MAX_REQUEST_ID = 128


def request_id(header: str | None) -> str:
    """Return the client's request ID without unsafe characters, or a new one."""
    return UNSAFE.sub("", header or "")[:MAX_REQUEST_ID] or uuid.uuid4().hex


SEND_BODY = "send_body"
"""The name under which `BodyMiddleware` puts its `send` into the state of a request."""


class BodyMiddleware:
    """Lets a stream send its events past all other middleware: this must be the outermost.

    None of the others looks at what follows the first message, but each would cost another
    coroutine per event. The exception is `HEAD`, for which `HeadMiddleware` drops the body.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] != "HEAD":
            scope.setdefault("state", {})[SEND_BODY] = send
        await self._app(scope, receive, send)


class RequestIdMiddleware:
    """Adds the header `x-request-id` to responses: the request's, or a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identifier = request_id(Headers(scope=scope).get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = identifier

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = identifier
            await send(message)

        await self._app(scope, receive, send_with_id)


class HeadMiddleware:
    """Answers `HEAD` requests as `GET`, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            is_body = message["type"] == "http.response.body"
            await send({**message, "body": b""} if is_body else message)

        await self._app({**scope, "method": "GET"}, receive, send_without_body)
