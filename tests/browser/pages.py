"""Pages of a gateway in a real browser."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from playwright.async_api import Browser, ConsoleMessage, Page, Request, expect

from proctor.server.engines.fake import FakeEngine
from tests.server.harness import running_server
from tests.waiting import PATIENCE

PATIENCE_MS = 1000 * PATIENCE
expect.set_options(timeout=PATIENCE_MS)  # the default of 5 s is too short for a busy machine

REFUSED = "Failed to load resource"
"""The message in Chromium's console for each response that is an error."""


@asynccontextmanager
async def open_page(
    browser: Browser, url: str, path: str = "/", **context: Any
) -> AsyncIterator[Page]:
    """Open a page in headless Chromium, and check for errors and for requests to other hosts."""
    failures: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(REFUSED):
            failures.append(message.text)

    def on_request(request: Request) -> None:
        if not request.url.startswith((url, "data:")):
            failures.append(f"request to {request.url}")

    async with await browser.new_context(**context) as browser_context:
        page = await browser_context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("console", on_console)
        page.on("request", on_request)
        await page.goto(url + path)
        yield page
    assert failures == []


class Relay:
    """Forwards bytes to a server, until its connections are cut."""

    def __init__(self, target: str) -> None:
        self._target = httpx.URL(target)
        self._writers: list[asyncio.StreamWriter] = []
        self.url = ""

    def cut(self) -> None:
        """Abort all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection."""
        upstream = await asyncio.open_connection(self._target.host, self._target.port)
        self._writers += [writer, upstream[1]]
        with contextlib.suppress(OSError):
            await asyncio.gather(_pass(reader, upstream[1]), _pass(upstream[0], writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def relay_to(url: str) -> AsyncIterator[Relay]:
    """Run a relay to a server."""
    relay = Relay(url)
    async with await asyncio.start_server(relay.serve, "127.0.0.1", 0) as server:
        relay.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield relay
        relay.cut()


@asynccontextmanager
async def open_gateway_page(
    browser: Browser,
    engine: FakeEngine,
    path: str = "/",
    overrides: dict[str, Any] | None = None,
    **context: Any,
) -> AsyncIterator[Page]:
    """Start a gateway over a fake engine, and open one of its pages."""
    async with (
        running_server(engine, **(overrides or {})) as url,
        open_page(browser, url, path, **context) as page,
    ):
        yield page
