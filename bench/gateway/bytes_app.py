"""A bare ASGI application that copies bytes: the limit, and the upstream of proxies."""

from contextlib import aclosing
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from bench.gateway.asgi import respond_json, send_body, start_stream, while_connected, whole_body
from bench.gateway.script import StepClocks, text_at

CHUNK = b'{"id":"chatcmpl-0","object":"chat.completion.chunk","created":0,"model":"proctor-demo",'
EVENT = b"data: " + CHUNK + b'"choices":[{"index":0,"delta":%s,"finish_reason":%s}]}\n\n'


class BytesApp:
    """Streams prepared chunks of chat completions, with the text of each step in one event."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._clocks = StepClocks()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = orjson.loads(await whole_body(receive) or b"{}")
        if request.get("stream"):
            await while_connected(receive, self._stream(request, send))
        else:
            await respond_json(send, self._completion(request.get("max_tokens") or 1))

    async def _stream(self, request: dict[str, Any], send: Send) -> None:
        total, sent = request["max_tokens"], 0
        await start_stream(send)
        async with aclosing(self._clocks.counts(request.get("seed") or 0, total)) as counts:
            async for count in counts:
                delta = b'{"content":"%s"}' % text_at(sent, count).encode()
                sent = count
                await send_body(send, EVENT % (delta, b"null"), more=True)
        await send_body(send, EVENT % (b"{}", b'"stop"') + b"data: [DONE]\n\n", more=False)

    def _completion(self, tokens: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": text_at(0, tokens)}
        return {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": self._name,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1},
        }
