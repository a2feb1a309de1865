"""A real browser at a server's pages."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from playwright.async_api import Page, async_playwright

from server.engines.fake import FakeEngine
from tests.requirements import require
from tests.server.harness import listening

PATIENCE_MS = 20_000
REFUSED = "Failed to load resource"
"""What Chromium's console says of each answer that is an error."""


@asynccontextmanager
async def browsing(url: str, path: str = "/", **context: Any) -> AsyncIterator[Page]:
    """A page in headless Chromium; nothing may be asked of other hosts, and nothing may fail."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    require(found, "Chromium")
    faults: list[str] = []
    async with async_playwright() as playwright:
        # The sandbox needs rights that containers, in which tests often run, do not have.
        browser = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = await (await browser.new_context(**context)).new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda told: (
                faults.append(told.text)
                if told.type == "error" and not told.text.startswith(REFUSED)
                else None
            ),
        )
        page.on(
            "request",
            lambda asked: (
                None
                if asked.url.startswith((url, "data:"))
                else faults.append(f"asked for {asked.url}")
            ),
        )
        await page.goto(url + path)
        yield page
        await browser.close()
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
    engine: FakeEngine, path: str = "/", limits: dict[str, Any] | None = None, **context: Any
) -> AsyncIterator[Page]:
    """The same, of a server of its own over a scripted engine."""
    async with (
        listening(engine, limits=limits or {}, page={"examples": ["2 + 2?"]}) as url,
        browsing(url, path, **context) as page,
    ):
        yield page
