"""The page at `/`: each request as code, which must do the same."""

import asyncio
import sys

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from tests.browser.opening import opened
from tests.browser.using import ask, choose, facts, field
from tests.server.auth.keys import configured_key
from tests.server.harness import with_timeout
from tests.waiting import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="package")

TEXT = 'It\'s "$HOME" \\n `ls` 🙂 {}\n\tTrue, null?'


async def asked(page: Page) -> Locator:
    """A request with all that a request can have, and what was said before."""
    await choose(page, "low")
    await page.get_by_label("Temperature").fill("0.7")
    await page.get_by_label("Seed").fill("7")
    await field(page, "Minimum").fill("2")
    await field(page, "Maximum").fill("30")
    await field(page, "Continuations").fill("1")
    await facts(await ask(page, TEXT))
    run = await ask(page, TEXT)
    await facts(run)
    await run.get_by_text("This request as code").click()
    return run


async def output(*command: str) -> str:
    """What a command prints."""
    running = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    told, complaints = await asyncio.wait_for(running.communicate(), PATIENCE)
    assert running.returncode == 0, complaints.decode()
    return told.decode()


def same(one: Job, other: Job) -> bool:
    return (one.prompt_ids, one.sampling, one.budget) == (
        other.prompt_ids,
        other.sampling,
        other.budget,
    )


async def test_curl_asks_the_same(browser: Browser) -> None:
    engine = FakeEngine(Script(("☃ so",), "It's 42."))
    async with opened(browser, engine) as page:
        run = await asked(page)
        code = await run.get_by_label("The request as curl").text_content()
        printed = await output("sh", "-c", code or "")

    assert printed.endswith("data: [DONE]\n\n")
    assert same(engine.jobs[-2], engine.jobs[-1])


async def test_python_asks_the_same(browser: Browser) -> None:
    engine = FakeEngine(Script(("☃ so",), "It's 42."))
    async with opened(browser, engine) as page:
        run = await asked(page)
        code = await run.get_by_label("The request as Python").text_content()
        printed = await output(sys.executable, "-c", code or "")

    assert printed == "☃ soWait☃ soIt's 42.\n"
    assert same(engine.jobs[-2], engine.jobs[-1])


@pytest.mark.parametrize("language", ["curl", "Python"])
async def test_a_key_opens_the_page_and_is_in_no_code(
    browser: Browser, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, token = configured_key()
    monkeypatch.setenv("PROCTOR_KEY", token)
    engine = FakeEngine(Script(("so",), "42"))
    async with opened(browser, engine, given={"keys": [key]}) as page:
        notice = page.locator("#notice")
        await expect(notice).to_contain_text("Access denied: Missing API key")
        await expect(page.get_by_role("button", name="Send")).to_be_disabled()
        await page.get_by_label("Key", exact=True).fill(token)
        await choose(page, "low")
        run = await ask(page)
        await facts(run)
        await run.get_by_text("This request as code").click()
        code = await run.get_by_label(f"The request as {language}").text_content() or ""
        command = ("sh", "-c") if language == "curl" else (sys.executable, "-c")
        await output(*command, code)

    assert token not in code
    assert same(*engine.jobs)


@pytest.mark.parametrize("language", ["curl", "Python"])
async def test_a_click_copies(browser: Browser, language: str) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    async with opened(browser, FakeEngine(), permissions=permissions) as page:
        run = await asked(page)
        figure = run.get_by_role("figure").filter(has_text=language).first
        await figure.get_by_role("button", name="Copy").click()

        await expect(figure.get_by_role("button")).to_have_text("Copied")
        copied = await page.evaluate("navigator.clipboard.readText()")
        assert copied == await figure.locator("pre").text_content()


async def test_without_a_clipboard_it_is_selected(browser: Browser) -> None:
    async with opened(browser, FakeEngine()) as page:
        await page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        run = await asked(page)
        figure = run.get_by_role("figure").first
        await figure.get_by_role("button", name="Copy").click()

        await expect(figure.get_by_role("button")).to_have_text("Selected")
        selected = await page.evaluate("getSelection().toString()")
        assert selected.startswith("curl --no-buffer")
        assert await with_timeout(figure.locator("pre").text_content()) == selected
