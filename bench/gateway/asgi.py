"""The little of ASGI that the scripted servers need."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import orjson
from starlette.types import Receive, Send

from proctor.server.transport.sse_response import disconnected


async def whole_body(receive: Receive) -> bytes:
    """Return the body of a request."""
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def start_stream(send: Send) -> None:
    """Begin a response of server-sent events."""
    await _start(send, [(b"content-type", b"text/event-stream")])


async def while_connected(receive: Receive, streaming: Coroutine[Any, Any, None]) -> None:
    """Stream a response, until the client disconnects: uvicorn drops what is sent after that."""
    task = asyncio.create_task(streaming)
    leaving = asyncio.create_task(disconnected(receive))
    leaving.add_done_callback(lambda _: task.cancel())
    await asyncio.wait({task})
    leaving.cancel()
    if not task.cancelled():
        task.result()


async def respond_json(send: Send, data: Any) -> None:
    """Send a whole response."""
    body = orjson.dumps(data)
    length = (b"content-length", b"%d" % len(body))
    await _start(send, [(b"content-type", b"application/json"), length])
    await send_body(send, body, more=False)


async def send_body(send: Send, body: bytes, *, more: bool) -> None:
    """Send a part of the body."""
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _start(send: Send, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})
