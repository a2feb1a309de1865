"""Streams send their events past all middleware but the outermost."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proctor.server.app import create_app
from proctor.server.config.settings import Settings
from proctor.server.engines.fake import FakeEngine
from proctor.server.transport.middleware import (
    BodyMiddleware,
    HeadMiddleware,
    RequestIdMiddleware,
)
from proctor.server.transport.sse_response import SseResponse

EVENTS = [b"data: 1\n\n", b"data: 2\n\n"]


async def respond(scope: Scope, receive: Receive, send: Send) -> None:
    async def events() -> AsyncGenerator[bytes, None]:
        for each in EVENTS:
            yield each

    response = SseResponse(events(), heartbeat=bytes, heartbeat_seconds=0, send_timeout=10)
    await response(scope, receive, send)


async def sent_by(app: ASGIApp, method: str = "GET") -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.Event().wait()  # the client stays
        raise AssertionError("unreachable")

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "http", "method": method, "headers": []}, receive, send)
    return sent


class Recorder:
    """Middleware that records what passes it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.passed: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_record(message: Message) -> None:
            self.passed.append(message["type"])
            await send(message)

        await self._app(scope, receive, send_and_record)


async def test_other_middleware_sees_the_first_message_only() -> None:
    recorder = Recorder(respond)
    start, *bodies = await sent_by(BodyMiddleware(RequestIdMiddleware(recorder)))

    assert recorder.passed == ["http.response.start"]
    assert b"x-request-id" in dict(start["headers"])
    assert [each["body"] for each in bodies] == [*EVENTS, b""]
    assert [each["more_body"] for each in bodies] == [True, True, False]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_it_changes_nothing_of_what_is_sent(method: str) -> None:
    app = HeadMiddleware(respond)
    assert await sent_by(BodyMiddleware(app), method) == await sent_by(app, method)


def test_it_is_the_outermost_of_the_server() -> None:
    app = create_app(Settings(), FakeEngine)
    outermost: object = app.user_middleware[0].cls
    assert outermost is BodyMiddleware
