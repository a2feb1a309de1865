"""A gateway over a fake engine, called in process or over a loopback port."""

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
from tests.server.openapi_check import assert_matches_openapi
from tests.waiting import PATIENCE

CHAT = "/v1/chat/completions"


def settings(**overrides: Any) -> Settings:
    """Return settings whose default tier is `custom`, so that no budget applies by default."""
    return Settings(**{"default_tier": CUSTOM, **overrides})


def body(**fields: Any) -> dict[str, Any]:
    """Return the body of a chat request, with `fields` over the defaults."""
    return {"model": "fake", "messages": [{"role": "user", "content": "hi"}], **fields}


@asynccontextmanager
async def running_app(engine: FakeEngine, **overrides: Any) -> AsyncIterator[FastAPI]:
    """Run an application, and wait until its engine has loaded."""
    app = create_app(settings(**overrides), lambda: engine)
    async with app.router.lifespan_context(app):
        await app.state.supervisor.loaded()
        yield app


@asynccontextmanager
async def client(engine: FakeEngine, **overrides: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client that calls an application over ASGI; streams arrive at once, complete.

    Every response is validated against the OpenAPI document.
    """
    async with running_app(engine, **overrides) as app, asgi_client(app) as http:
        yield http


def asgi_client(app: FastAPI) -> httpx.AsyncClient:
    """Return a client that calls a running application as `client` does."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://test",
        event_hooks={"response": [assert_matches_openapi]},
    )


class QuietServer(uvicorn.Server):
    """A server that does not replace the test run's signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listening_socket() -> socket.socket:
    """Return a socket that listens on a free loopback port.

    Its protocol is explicit: asyncio disables Nagle's algorithm only where the protocol is TCP.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


@asynccontextmanager
async def serve_app(app: ASGIApp, send_timeout: float = PATIENCE) -> AsyncIterator[str]:
    """Serve an application on a loopback port, and yield its base URL."""
    with listening_socket() as listener:
        config = uvicorn.Config(
            app,
            http=make_http(send_timeout),
            ws="none",
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
        server = QuietServer(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url) as http:
            await http.get("/health")
        try:
            yield url
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def running_server(engine: FakeEngine, **overrides: Any) -> AsyncIterator[str]:
    """Serve a gateway whose engine has loaded, and yield its base URL."""
    server_settings = settings(**overrides)
    app = create_app(server_settings, lambda: engine)
    async with serve_app(app, server_settings.limits.send_timeout_seconds) as url:
        await app.state.supervisor.loaded()
        yield url


@dataclass(frozen=True)
class Event:
    """A server-sent event."""

    name: str | None
    data: Any

    @property
    def choice(self) -> Any:
        return self.data["choices"][0]


def parse_events(text: str) -> list[Event]:
    """Parse a stream of server-sent events; comments are skipped."""
    events = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        lines = [line.split(": ", 1) for line in block.split("\n") if not line.startswith(":")]
        if not lines:
            continue
        fields = dict(lines)
        data = fields["data"]
        events.append(Event(fields.get("event"), data if data == "[DONE]" else orjson.loads(data)))
    return events


def merge_deltas(deltas: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Concatenate the texts of a stream's deltas by field; a field without text stays None."""
    texts: dict[str, Any] = {}
    for delta in deltas:
        for key, text in delta.items():
            texts[key] = texts.get(key) if text is None else (texts.get(key) or "") + text
    return texts


async def with_timeout(awaitable: Any) -> Any:
    """Await something that must not hang."""
    return await asyncio.wait_for(awaitable, PATIENCE)


def advance_clock(seconds: float) -> None:
    """Advance the clock of the running event loop, so that its timers fire early."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds  # type: ignore[method-assign]


class Gate:
    """A `before_token` hook that blocks each job at one position until it is opened.

    Attributes:
        reached: set when a job is at the position.
        opened: lets the jobs continue.
    """

    def __init__(self, position: int) -> None:
        self._position = position
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, job: Job, position: int) -> None:
        if position == self._position:
            self.reached.set()
            await self.opened.wait()
