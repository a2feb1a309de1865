"""The page at `/`: the code shown for a request sends the same request."""

import asyncio
import sys

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from tests.browser.actions import ask, choose, field, wait_for_facts
from tests.browser.pages import open_gateway_page
from tests.server.auth.keys import configured_key
from tests.server.harness import with_timeout
from tests.waiting import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="package")

TEXT = 'It\'s "$HOME" \\n `ls` 🙂 {}\n\tTrue, null?'


async def send_full_request(page: Page) -> Locator:
    """Send a request with every setting and a previous message, and open its code."""
    await choose(page, "low")
    await page.get_by_label("Temperature").fill("0.7")
    await page.get_by_label("Seed").fill("7")
    await field(page, "Minimum").fill("2")
    await field(page, "Maximum").fill("30")
    await field(page, "Continuations").fill("1")
    await wait_for_facts(await ask(page, TEXT))
    run = await ask(page, TEXT)
    await wait_for_facts(run)
    await run.get_by_text("This request as code").click()
    return run


async def output_of(*command: str) -> str:
    """Run a command, and return its output."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, errors.decode()
    return output.decode()


def same_job(one: Job, other: Job) -> bool:
    return (one.prompt_ids, one.sampling, one.budget) == (
        other.prompt_ids,
        other.sampling,
        other.budget,
    )


async def test_curl_sends_the_same_request(browser: Browser) -> None:
    engine = FakeEngine(Script(("☃ so",), "It's 42."))
    async with open_gateway_page(browser, engine) as page:
        run = await send_full_request(page)
        code = await run.get_by_label("The request as curl").text_content()
        printed = await output_of("sh", "-c", code or "")

    assert printed.endswith("data: [DONE]\n\n")
    assert same_job(engine.jobs[-2], engine.jobs[-1])


async def test_python_sends_the_same_request(browser: Browser) -> None:
    engine = FakeEngine(Script(("☃ so",), "It's 42."))
    async with open_gateway_page(browser, engine) as page:
        run = await send_full_request(page)
        code = await run.get_by_label("The request as Python").text_content()
        printed = await output_of(sys.executable, "-c", code or "")

    assert printed == "☃ soWait☃ soIt's 42.\n"
    assert same_job(engine.jobs[-2], engine.jobs[-1])


@pytest.mark.parametrize("language", ["curl", "Python"])
async def test_the_code_does_not_contain_the_api_key(
    browser: Browser, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, token = configured_key()
    monkeypatch.setenv("PROCTOR_KEY", token)
    engine = FakeEngine(Script(("so",), "42"))
    async with open_gateway_page(browser, engine, overrides={"keys": [key]}) as page:
        notice = page.locator("#notice")
        await expect(notice).to_contain_text("Access denied: Missing API key")
        await expect(page.get_by_role("button", name="Send")).to_be_disabled()
        await page.get_by_label("Key", exact=True).fill(token)
        await choose(page, "low")
        run = await ask(page)
        await wait_for_facts(run)
        await run.get_by_text("This request as code").click()
        code = await run.get_by_label(f"The request as {language}").text_content() or ""
        command = ("sh", "-c") if language == "curl" else (sys.executable, "-c")
        await output_of(*command, code)

    assert token not in code
    assert same_job(*engine.jobs)


@pytest.mark.parametrize("language", ["curl", "Python"])
async def test_copy_writes_to_the_clipboard(browser: Browser, language: str) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    async with open_gateway_page(browser, FakeEngine(), permissions=permissions) as page:
        run = await send_full_request(page)
        figure = run.get_by_role("figure").filter(has_text=language).first
        await figure.get_by_role("button", name="Copy").click()

        await expect(figure.get_by_role("button")).to_have_text("Copied")
        copied = await page.evaluate("navigator.clipboard.readText()")
        assert copied == await figure.locator("pre").text_content()


async def test_without_a_clipboard_the_code_is_selected(browser: Browser) -> None:
    async with open_gateway_page(browser, FakeEngine()) as page:
        await page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        run = await send_full_request(page)
        figure = run.get_by_role("figure").first
        await figure.get_by_role("button", name="Copy").click()

        await expect(figure.get_by_role("button")).to_have_text("Selected")
        selected = await page.evaluate("getSelection().toString()")
        assert selected.startswith("curl --no-buffer")
        assert await with_timeout(figure.locator("pre").text_content()) == selected
