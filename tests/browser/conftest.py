"""One browser for all tests; each opens a new context, and usually starts its own gateway."""

import shutil
from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.requirements import require


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    require(found, "Chromium")
    async with async_playwright() as playwright:
        # The sandbox needs rights that containers, in which tests often run, do not have.
        chromium = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        await chromium.close()
