"""A real browser at a server's pages."""

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
expect.set_options(timeout=PATIENCE_MS)  # five seconds by default: too few for a busy machine

REFUSED = "Failed to load resource"
"""What Chromium's console says of each answer that is an error."""


@asynccontextmanager
async def browsing(
    browser: Browser, url: str, path: str = "/", **context: Any
) -> AsyncIterator[Page]:
    """A page in headless Chromium; nothing may be asked of other hosts, and nothing may fail."""
    faults: list[str] = []

    def on_console(told: ConsoleMessage) -> None:
        if told.type in ("error", "warning") and not told.text.startswith(REFUSED):
            faults.append(told.text)

    def on_request(asked: Request) -> None:
        if not asked.url.startswith((url, "data:")):
            faults.append(f"asked for {asked.url}")

    async with await browser.new_context(**context) as opened:
        page = await opened.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", on_console)
        page.on("request", on_request)
        await page.goto(url + path)
        yield page
    assert faults == []


class Relay:
    """Passes bytes on to a server, until it is cut."""

    def __init__(self, target: str) -> None:
        self._target = httpx.URL(target)
        self._writers: list[asyncio.StreamWriter] = []
        self.url = ""

    def cut(self) -> None:
        """Break all connections off."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        there = await asyncio.open_connection(self._target.host, self._target.port)
        self._writers += [writer, there[1]]
        with contextlib.suppress(OSError):
            await asyncio.gather(_pass(reader, there[1]), _pass(there[0], writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def relayed(url: str) -> AsyncIterator[Relay]:
    """A relay before a server."""
    relay = Relay(url)
    async with await asyncio.start_server(relay.serve, "127.0.0.1", 0) as server:
        relay.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield relay
        relay.cut()


@asynccontextmanager
async def opened(
    browser: Browser,
    engine: FakeEngine,
    path: str = "/",
    given: dict[str, Any] | None = None,
    **context: Any,
) -> AsyncIterator[Page]:
    """The same, of a server of its own over a scripted engine, with settings as `given`."""
    async with (
        running_server(engine, **(given or {})) as url,
        browsing(browser, url, path, **context) as page,
    ):
        yield page
