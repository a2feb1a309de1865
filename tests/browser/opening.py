"""A real browser at a server's pages."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

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
