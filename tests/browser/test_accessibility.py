"""The page at `/`: accessibility, keyboard, phones and dark mode."""

from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from proctor.server.engines.fake import FakeEngine, Script
from tests.browser.actions import ask, choose, field, wait_for_facts
from tests.browser.pages import open_gateway_page
from tests.server.harness import Gate, with_timeout

pytestmark = pytest.mark.asyncio(loop_scope="package")

DESKTOP = {"width": 1200, "height": 850}
PHONE = {"width": 375, "height": 700}
CONTEXTS = [
    {"viewport": DESKTOP},
    {"viewport": DESKTOP, "color_scheme": "dark"},
    {"viewport": PHONE, "has_touch": True, "is_mobile": True},
    {"viewport": PHONE, "color_scheme": "dark"},
]
LONG = "".join(map(str, range(150)))
LINES = "".join(f"line {number}\n" for number in range(60))


async def assert_accessible(page: Page) -> None:
    """Check that axe finds no violation, contrast included, and that nothing scrolls sideways."""
    assert await page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
    results = await Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize("context_options", CONTEXTS)
async def test_no_accessibility_violations(
    browser: Browser, context_options: dict[str, Any]
) -> None:
    engine = FakeEngine(Script((f"☃ {LONG}. ", LINES), LONG))
    overrides = {"page": {"examples": ["2 + 2?"]}, "budget": {"wrap_up_text": "So"}}
    async with open_gateway_page(browser, engine, overrides=overrides, **context_options) as page:
        await expect(page.locator("#examples button")).to_be_visible()
        await assert_accessible(page)
        if not await page.locator("#budgets").is_visible():
            await page.locator("#settings summary").click()
        await page.get_by_role("switch", name="Side by side").check()
        await choose(page, "medium", budget=1)
        await field(page, "Minimum").fill("1100")
        await field(page, "Maximum").fill("100")
        await field(page, "Continuations", budget=1).fill("1")
        await field(page, "Maximum", budget=1).fill("800")
        await assert_accessible(page)
        if context_options["viewport"] == PHONE:
            await page.locator("#settings summary").click()
        await ask(page, LONG)
        await expect(page.get_by_role("alert").first).to_be_visible()
        await wait_for_facts(page.locator(".run").nth(1))
        await expect(page.locator("mark")).to_have_count(2)
        await page.get_by_text("This request as code").nth(1).click()
        await assert_accessible(page)


async def test_a_phone_shows_runs_below_each_other(browser: Browser) -> None:
    async with open_gateway_page(browser, FakeEngine(), viewport=PHONE) as page:
        await expect(page.locator("#budgets")).to_be_hidden()
        await expect(page.locator("#settings summary")).to_contain_text("tier auto")
        await page.locator("#settings summary").click()
        await page.get_by_role("switch", name="Side by side").check()
        await page.locator("#settings summary").click()
        await ask(page)
        boxes = []
        for side in (0, 1):
            await wait_for_facts(page.locator(".run").nth(side))
            boxes.append(await page.locator(".run").nth(side).bounding_box())

    first, second = boxes
    assert first
    assert second
    assert first["y"] + first["height"] < second["y"]
    assert first["width"] == second["width"] > 300


async def test_the_page_works_by_keyboard(browser: Browser) -> None:
    async with open_gateway_page(browser, FakeEngine(Script(("x" * 20,), "42"))) as page:
        await expect(page.get_by_role("button", name="Send")).to_be_enabled()
        press = page.keyboard.press
        await press("Tab")
        await expect(page.get_by_role("link", name="Skip to prompt")).to_be_focused()
        for _ in range(4):
            await press("Tab")
        await expect(page.get_by_role("radio", name="auto").first).to_be_focused()
        await press("ArrowRight")
        await press("ArrowRight")
        await expect(page.get_by_role("radio", name="low").first).to_be_checked()
        for _ in range(3):
            await press("Tab")
        await expect(field(page, "Maximum")).to_be_focused()
        await page.keyboard.type("7")
        while await page.evaluate("document.activeElement.id") != "prompt":
            await press("Tab")
        await page.keyboard.type("one")
        await press("Shift+Enter")
        await page.keyboard.type("two")
        await expect(page.get_by_label("Your prompt")).to_have_value("one\ntwo")
        await press("Enter")
        run = page.locator(".run")
        facts = await wait_for_facts(run)
        assert facts["Thinking"].startswith("7 tokens")
        await expect(page.locator(".prompt")).to_have_text("one two")

        await run.get_by_role("button", name="Thinking").focus()
        await press("Enter")
        await expect(run.locator(".thought")).to_be_hidden()
        await expect(run.get_by_role("meter")).to_be_visible()
        await expect(run.get_by_role("button", name="Thinking")).to_have_attribute(
            "aria-expanded", "false"
        )
        await press("Space")
        await expect(run.locator(".thought")).to_be_visible()


async def test_the_page_scrolls_to_the_last_turn(browser: Browser) -> None:
    engine = FakeEngine(Script((LINES,), "42"))
    async with open_gateway_page(browser, engine, viewport=DESKTOP) as page:
        for _ in range(2):
            run = await ask(page)
            await wait_for_facts(run)
        box = await page.locator(".turn").last.bounding_box()

    assert box
    assert 0 <= box["y"] < 100


async def test_a_pane_scrolls_with_the_thinking_unless_scrolled_back(browser: Browser) -> None:
    gate = Gate(200)
    engine = FakeEngine(Script((LINES,), "42"), before_token=gate)
    async with open_gateway_page(browser, engine, viewport=DESKTOP) as page:
        await choose(page, "low")
        run = await ask(page)
        await with_timeout(gate.reached.wait())
        pane = run.locator(".thought")
        await expect(pane).to_contain_text("line 23")
        distance_to_end = "pane => pane.scrollHeight - pane.clientHeight - pane.scrollTop"
        assert await pane.evaluate(distance_to_end) < 40
        await pane.evaluate("pane => pane.scrollTo(0, 0)")
        gate.opened.set()
        await wait_for_facts(run)

        assert await pane.evaluate("pane => pane.scrollTop") == 0
