"""A gateway over a fake engine, in this process or on a port of this machine."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from proctor.server.app import create_app
from proctor.server.config.budgets import CUSTOM
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine
from proctor.server.transport.http_protocol import make_http
from tests.server.described import assert_described
from tests.waiting import PATIENCE

CHAT = "/v1/chat/completions"


def settings(**given: Any) -> Settings:
    """Settings from nothing but `given`; a request that names no budget gets none."""
    return Settings(**{"default_tier": CUSTOM, **given})


def body(**fields: Any) -> dict[str, Any]:
    """A request, with more fields or others."""
    return {"model": "fake", "messages": [{"role": "user", "content": "hi"}], **fields}


@asynccontextmanager
async def started(engine: FakeEngine, **given: Any) -> AsyncIterator[FastAPI]:
    """An application whose engine has loaded."""
    app = create_app(settings(**given), lambda: engine)
    async with app.router.lifespan_context(app):
        await app.state.supervisor.loaded()
        yield app


@asynccontextmanager
async def client(engine: FakeEngine, **given: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client that calls the application without a network; streams come whole.

    Every answer is held against what the server says of itself.
    """
    async with (
        started(engine, **given) as app,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://test",
            event_hooks={"response": [assert_described]},
        ) as http,
    ):
        yield http


class QuietServer(uvicorn.Server):
    """A server that leaves the test run's signal handlers alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listener() -> socket.socket:
    """A socket to serve from, on a loopback port.

    It is told its protocol: asyncio turns Nagle's algorithm off for TCP, and takes a socket
    without a protocol for something else.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.bind(("127.0.0.1", 0))
    made.listen()
    return made


@asynccontextmanager
async def serving(app: ASGIApp, send_timeout: float = PATIENCE) -> AsyncIterator[str]:
    """The base URL of an application on a loopback port."""
    with listener() as bound:
        config = uvicorn.Config(
            app,
            http=make_http(send_timeout),
            ws="none",
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
        server = QuietServer(config)
        task = asyncio.create_task(server.serve(sockets=[bound]))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url) as http:
            await http.get("/health")
        try:
            yield url
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def listening(engine: FakeEngine, **given: Any) -> AsyncIterator[str]:
    """The base URL of a server on a loopback port."""
    told = settings(**given)
    app = create_app(told, lambda: engine)
    async with serving(app, told.limits.send_timeout_seconds) as url:
        await app.state.supervisor.loaded()
        yield url


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    name: str | None
    data: Any

    @property
    def choice(self) -> Any:
        return self.data["choices"][0]


def events(text: str) -> list[Event]:
    """The events of a stream; comments are passed over."""
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        lines = [line.split(": ", 1) for line in block.split("\n") if not line.startswith(":")]
        if not lines:
            continue
        fields = dict(lines)
        data = fields["data"]
        found.append(Event(fields.get("event"), data if data == "[DONE]" else orjson.loads(data)))
    return found


def added_up(deltas: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The texts of a stream's deltas, as clients add them up; what has no text stays null."""
    texts: dict[str, Any] = {}
    for delta in deltas:
        for key, text in delta.items():
            texts[key] = texts.get(key) if text is None else (texts.get(key) or "") + text
    return texts


async def soon(awaitable: Any) -> Any:
    """What must happen, and without delay."""
    return await asyncio.wait_for(awaitable, PATIENCE)


def pass_time(seconds: float) -> None:
    """Let time pass at once, by the running loop's clock: what waits for it need not."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds  # type: ignore[method-assign]


class Gate:
    """Holds an engine up before one of each job's tokens."""

    def __init__(self, position: int) -> None:
        self._position = position
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, job: Job, position: int) -> None:
        if position == self._position:
            self.reached.set()
            await self.opened.wait()
