"""The page at `/`, used as a person would."""

import asyncio
import re
from typing import Any

import httpx
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Locator, Page, expect

from server.engines.fake import FakeEngine, Script
from tests.browser.opening import browsing, opened, relayed
from tests.engine.served import Served
from tests.server.harness import CHAT, Gate, body, listening, soon

HOSTILE = "<img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script>"


async def ask(page: Page, text: str = "How much?") -> Locator:
    """Ask, and give the place of the answer."""
    await expect(page.locator("#send")).to_be_enabled()
    if not await page.locator("#budgets").is_visible():
        await page.locator("#settings summary").click()
    if not await page.get_by_role("radio", name="medium").first.is_checked():
        # What the router makes of a prompt is not the matter here.
        await page.get_by_text("medium", exact=True).first.click()
    runs = page.locator(".run")
    before = await runs.count()
    await page.get_by_label("Your prompt").fill(text)
    await page.keyboard.press("Enter")
    return runs.nth(before)


def field(page: Page, name: str) -> Locator:
    """A number of the first budget; the second is shown side by side only."""
    return page.get_by_label(name, exact=True).first


async def done(run: Locator) -> dict[str, str]:
    """Wait for the end of a run: its facts, by name."""
    await expect(run.locator(".facts")).to_be_visible()
    names = await run.locator("dt").all_inner_texts()
    return dict(zip(names, await run.locator("dd").all_inner_texts(), strict=True))


async def test_thinking_and_answer_are_apart() -> None:
    async with opened(FakeEngine(Script(("Let me see.",), "It is 42."))) as page:
        run = await ask(page)
        facts = await done(run)

        await expect(run.locator(".thought")).to_have_text("Let me see.")
        await expect(run.locator(".answer-text")).to_have_text("It is 42.")
        await expect(run.locator(".status")).to_have_text("Done.")
        assert facts["Why the thinking ended"] == "The model closed its thinking by itself."
        assert facts["Thinking"].startswith("11 tokens")


async def test_a_lower_cap_shortens_the_thinking() -> None:
    engine = FakeEngine(Script(("x" * 60,), "42"))
    async with opened(engine) as page:
        await field(page, "Maximum").fill("40")
        first = await ask(page)
        await done(first)
        slider = page.get_by_label("Maximum, as a slider").first
        await slider.focus()
        for _ in range(60):
            await page.keyboard.press("ArrowLeft")
        cap = int(await field(page, "Maximum").input_value())
        second = await ask(page)
        await done(second)

        assert cap < 40
        assert len(await first.locator(".thought").inner_text()) == 40
        assert len(await second.locator(".thought").inner_text()) == cap


async def test_what_the_server_put_in_is_marked() -> None:
    engine = FakeEngine(Script(("☃ one. ", "two."), "42"))
    async with opened(engine) as page:
        await field(page, "Continuations").fill("1")
        run = await ask(page)
        facts = await done(run)

        await expect(run.locator("mark")).to_have_text("Wait")
        await expect(run.locator(".thought")).to_have_text(re.compile("☃ one. .*Wait.*two."))
        assert "4 forced" in facts["Thinking"]


@pytest.mark.parametrize("way", ["button", "key"])
async def test_stop_aborts_in_the_engine(way: str) -> None:
    gate = Gate(6)
    engine = FakeEngine(Script(("thinking away",), "x"), before_token=gate)
    async with opened(engine) as page:
        run = await ask(page)
        await soon(gate.reached.wait())
        if way == "button":
            await page.get_by_role("button", name="Stop").click()
        else:
            await page.keyboard.press("Escape")
        name = await soon(engine.aborted.get())

        assert name == engine.jobs[-1].id
        await expect(run.locator(".status")).to_contain_text("Stopped by you")
        await expect(page.get_by_role("button", name="Send")).to_be_visible()


async def test_a_full_server_says_so_in_words() -> None:
    gate = Gate(1)
    engine = FakeEngine(before_token=gate)
    limits = {"max_running": 1, "max_waiting": 0}
    async with opened(engine, limits=limits) as page, httpx.AsyncClient() as other:
        url = page.url.rstrip("/")
        busy = asyncio.create_task(other.post(url + CHAT, json=body()))
        await soon(gate.reached.wait())
        run = await ask(page)

        await expect(run.get_by_role("alert")).to_contain_text("too much to do")
        await expect(run.locator(".retry")).to_be_visible()
        gate.opened.set()
        await soon(busy)
        await run.get_by_role("button", name="Try again", exact=True).click()
        await done(page.locator(".run").last)


async def test_an_engine_that_dies_says_so_and_what_came_is_kept() -> None:
    async with opened(FakeEngine(Script(("Let me see.",), "x"), die_after=4)) as page:
        run = await ask(page)

        await expect(run.get_by_role("alert")).to_contain_text("broke the answer off")
        await expect(run.locator(".thought")).to_have_text("Let")


async def test_a_lost_connection_says_so() -> None:
    gate = Gate(3)
    engine = FakeEngine(Script(("Let me see.",), "x"), before_token=gate)
    async with listening(engine) as url, relayed(url) as relay, browsing(relay.url) as page:
        run = await ask(page)
        await expect(run.locator(".thought")).to_have_text("Let")
        relay.cut()

        await expect(run.get_by_role("alert")).to_contain_text("connection was lost")
        await expect(run.locator(".thought")).to_have_text("Let")


async def test_what_the_model_writes_is_text() -> None:
    async with opened(FakeEngine(Script((HOSTILE,), HOSTILE))) as page:
        run = await ask(page, HOSTILE)
        await done(run)

        for pane in (".thought", ".answer-text"):
            await expect(run.locator(pane)).to_have_text(HOSTILE)
            assert await run.locator(f"{pane} *").count() == 0
        assert await page.locator(".turn img, .turn script").count() == 0
        assert await page.title() == "Proctor"


async def test_one_prompt_under_two_budgets() -> None:
    engine = FakeEngine(Script(("x" * 30,), "42"))
    async with opened(engine) as page:
        await page.get_by_role("switch").check()
        caps = page.locator("#budgets input[name=maximum]")
        await caps.nth(0).fill("5")
        await caps.nth(1).fill("20")
        await ask(page)
        for side, cap in ((0, 5), (1, 20)):
            run = page.locator(".run").nth(side)
            await done(run)
            assert len(await run.locator(".thought").inner_text()) == cap


async def test_the_request_can_be_sent_again_from_a_shell() -> None:
    async with opened(FakeEngine()) as page:
        await page.get_by_label("Seed").fill("7")
        run = await ask(page, "It's $HOME?")
        await done(run)
        await run.get_by_text("This request as code").click()
        curl = await run.get_by_label("The request as curl").inner_text()
        shell = await asyncio.create_subprocess_shell(
            curl, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        told, _ = await soon(shell.communicate())

    assert told.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "look",
    [
        {"viewport": {"width": 1200, "height": 850}},
        {"viewport": {"width": 375, "height": 700}, "color_scheme": "dark"},
    ],
)
async def test_it_can_be_read_by_anyone(look: dict[str, Any]) -> None:
    engine = FakeEngine(Script(("☃ one. ", "two."), "It is 42. " * 40))
    async with opened(engine, **look) as page:
        run = await ask(page)
        await done(run)
        overflow = await page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        found = await Axe().run(page)

    assert overflow == 0
    assert found.violations_count == 0, found.generate_report()


async def test_the_apis_page_needs_nothing_from_elsewhere() -> None:
    async with opened(FakeEngine(), "/docs") as page:
        await expect(page.get_by_text("/v1/chat/completions", exact=True)).to_be_visible()


async def test_the_demo_model_thinks_before_your_eyes(served: Served) -> None:
    async with browsing(served.url) as page:
        await page.locator("#examples button").first.click()
        await field(page, "Continuations").fill("2")
        await page.get_by_label("Temperature").fill("0")
        await page.get_by_role("button", name="Send").click()
        run = page.locator(".run").last
        facts = await done(run)

        await expect(run.locator("mark").first).to_have_text("Wait")
        await expect(run.locator(".answer-text")).to_have_text("The answer is 35.")
        assert "sent back" in facts["Thinking"]
