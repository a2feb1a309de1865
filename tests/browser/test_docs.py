"""The API reference at `/docs`, which loads nothing from other hosts."""

import pytest
from playwright.async_api import Browser, expect

from proctor.server.engines.fake import FakeEngine
from tests.browser.pages import open_gateway_page

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_an_operation_can_be_tried(browser: Browser) -> None:
    async with open_gateway_page(browser, FakeEngine(), "/docs") as page:
        await expect(page.get_by_text("/v1/chat/completions", exact=True)).to_be_visible()
        tiers = page.locator(".opblock").filter(has_text="/v1/tiers")
        await tiers.get_by_role("button").first.click()
        await tiers.get_by_role("button", name="Try it out").click()
        await tiers.get_by_role("button", name="Execute").click()

        live = tiers.locator(".live-responses-table")
        await expect(live.locator(".response-col_status").last).to_have_text("200")
        await expect(live).to_contain_text('"default_tier"')
