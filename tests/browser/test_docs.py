"""The API reference at `/docs`, which loads nothing from other hosts."""

import pytest
from playwright.async_api import Browser, expect

from proctor.server.engines.fake import FakeEngine
from tests.browser.pages import open_gateway_page

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models/{name}"])
async def test_an_example_can_be_sent_unchanged(browser: Browser, path: str) -> None:
    async with open_gateway_page(browser, FakeEngine(), "/docs") as page:
        block = page.locator(".opblock").filter(
            has=page.locator(f'.opblock-summary-path[data-path="{path}"]')
        )
        await block.get_by_role("button").first.click()
        await block.get_by_role("button", name="Try it out").click()
        await block.get_by_role("button", name="Execute").click()

        live = block.locator(".live-responses-table")
        await expect(live.locator(".response-col_status").last).to_have_text("200")


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
