"""The page at `/`: errors and how they are shown."""

import asyncio
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Route, expect

from proctor.server.engines.fake import FakeEngine, Script
from tests.browser.actions import ask, choose, field, wait_for_facts
from tests.browser.pages import open_gateway_page, open_page, relay_to
from tests.server.harness import CHAT, Gate, body, running_server, with_timeout

pytestmark = pytest.mark.asyncio(loop_scope="package")

HOSTILE = "<img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script>"


@pytest.mark.parametrize("control", ["button", "key"])
@pytest.mark.parametrize("budgets", [1, 2])
async def test_stopping_aborts_the_request_in_the_engine(
    browser: Browser, control: str, budgets: int
) -> None:
    gate = Gate(6)
    engine = FakeEngine(Script(("thinking away",), "x"), before_token=gate)
    async with open_gateway_page(browser, engine) as page:
        await choose(page, "low")
        if budgets == 2:
            await page.get_by_role("switch", name="Side by side").check()
            await choose(page, "low", budget=1)
        await ask(page)
        runs = page.locator(".run")
        await expect(runs.locator(".thought")).to_have_text(["thinki"] * budgets)
        await expect(page.get_by_role("button", name="Send")).to_be_hidden()
        if control == "button":
            await page.get_by_role("button", name="Stop").click()
        else:
            await page.keyboard.press("Escape")
        aborted = {await with_timeout(engine.aborted.get()) for _ in range(budgets)}

        assert aborted == {job.id for job in engine.jobs}
        await expect(runs.get_by_role("status")).to_have_text(
            ["Stopped. The text received so far is kept."] * budgets
        )
        await expect(runs.locator(".thought")).to_have_text(["thinki"] * budgets)
        await expect(page.get_by_role("button", name="Send")).to_be_visible()
        await expect(page.get_by_label("Your prompt")).to_be_focused()


async def test_a_400_shows_the_names_of_the_fields(browser: Browser) -> None:
    async with open_gateway_page(browser, FakeEngine()) as page:
        await field(page, "Minimum").fill("9")
        await field(page, "Maximum").fill("8")
        run = await ask(page)

        await expect(run.get_by_role("alert")).to_have_text(
            "The server rejected the request: min_thinking_tokens (9) must not exceed "
            "max_thinking_tokens (8)."
        )
        await field(page, "Maximum").fill("10")
        await wait_for_facts(await ask(page))


async def test_a_full_queue_shows_when_to_retry(browser: Browser) -> None:
    gate = Gate(1)
    engine = FakeEngine(before_token=gate)
    limits = {"max_running": 1, "max_waiting": 0}
    async with (
        open_gateway_page(browser, engine, overrides={"limits": limits}) as page,
        httpx.AsyncClient(base_url=page.url) as other,
    ):
        busy = asyncio.create_task(other.post(CHAT, json=body()))
        await with_timeout(gate.reached.wait())
        run = await ask(page)

        await expect(run.get_by_role("alert")).to_contain_text("Too many requests: ")
        await expect(run.get_by_role("alert")).to_contain_text("Try again in 1 s")
        gate.opened.set()
        await with_timeout(busy)
        await run.get_by_role("button", name="Try again", exact=True).click()
        await wait_for_facts(run)
        await expect(page.locator(".run")).to_have_count(1)


async def test_a_429_of_a_proxy_is_shown(browser: Browser) -> None:
    async def refuse(route: Route) -> None:
        await route.fulfill(status=429, headers={"retry-after": "7"}, body="<h1>slow down</h1>")

    async with open_gateway_page(browser, FakeEngine()) as page:
        await page.clock.install()
        await page.route(f"**{CHAT}", refuse)
        run = await ask(page)

        await expect(run.get_by_role("alert")).to_have_text("Too many requests. Try again in 7 s.")
        again = run.locator(".retry")
        await expect(again).to_have_text("Try again in 7 s")
        await expect(again).to_be_disabled()
        await page.unroute(f"**{CHAT}")
        await page.clock.run_for(7_000)
        await again.click()
        await page.clock.resume()
        await wait_for_facts(run)


async def test_the_page_waits_for_a_loading_model(browser: Browser) -> None:
    async def load(route: Route) -> None:
        error: dict[str, Any] = {"error": {"message": "the model is still loading"}}
        await route.fulfill(status=503, json=error)

    async with running_server(FakeEngine()) as url, open_page(browser, url, "/docs") as page:
        await page.route("**/v1/models", load)
        await page.goto(url)

        await expect(page.locator("#notice")).to_have_text(
            "The server is not ready: the model is still loading."
        )
        await expect(page.get_by_role("button", name="Send")).to_be_disabled()
        await page.unroute("**/v1/models")
        await wait_for_facts(await ask(page))
        await expect(page.locator("#notice")).to_be_empty()


async def test_an_engine_failure_is_shown_and_the_text_is_kept(browser: Browser) -> None:
    async with open_gateway_page(
        browser, FakeEngine(Script(("Let me see.",), "x"), die_after=3)
    ) as page:
        await choose(page, "low")
        run = await ask(page)

        await expect(run.get_by_role("alert")).to_contain_text("The response failed: ")
        await expect(run.locator(".thought")).to_have_text("Let")


@pytest.mark.parametrize(
    ("position", "message"),
    [
        (0, "The connection was lost before any text was received."),
        (3, "The connection was lost. The text received so far is kept."),
    ],
)
async def test_a_lost_connection_is_shown(browser: Browser, position: int, message: str) -> None:
    gate = Gate(position)
    engine = FakeEngine(Script(("Let me see.",), "x"), before_token=gate)
    async with (
        running_server(engine) as url,
        relay_to(url) as relay,
        open_page(browser, relay.url) as page,
    ):
        await choose(page, "low")
        run = await ask(page)
        await expect(run.locator(".thought")).to_have_text("Let"[:position])
        await expect(run.get_by_role("meter")).to_be_visible()
        relay.cut()

        await expect(run.get_by_role("alert")).to_have_text(message)
        await expect(run.locator(".thought")).to_have_text("Let"[:position])
        gate.opened.set()
        await run.get_by_role("button", name="Try again").click()
        await wait_for_facts(run)


async def test_an_unreachable_server_is_shown(browser: Browser) -> None:
    async with running_server(FakeEngine()) as url, open_page(browser, url) as page:
        await expect(page.get_by_role("button", name="Send")).to_be_enabled()
        await page.route(f"**{CHAT}", lambda route: route.abort("connectionrefused"))
        run = await ask(page)

        await expect(run.get_by_role("alert")).to_have_text(
            "Cannot reach the server. Is it running?"
        )


async def test_markup_is_shown_as_text(browser: Browser) -> None:
    script = Script((HOSTILE,), HOSTILE)
    overrides = {"page": {"examples": [HOSTILE]}, "served_model_name": HOSTILE}
    async with open_gateway_page(
        browser, FakeEngine(script, name=HOSTILE), overrides=overrides
    ) as page:
        await choose(page, "low")
        await page.locator("#examples button").click()
        await field(page, "Continuations").fill("1")
        run = await ask(page, HOSTILE)
        await wait_for_facts(run)
        await run.get_by_text("This request as code").click()

        await expect(page.locator(".prompt")).to_have_text(HOSTILE)
        await expect(run.locator(".thought")).to_have_text(f"{HOSTILE}Wait{HOSTILE}")
        await expect(run.locator(".answer-text")).to_have_text(HOSTILE)
        await expect(page.locator("#model")).to_have_text(HOSTILE)
        await expect(page.locator("img, body script")).to_have_count(0)
        assert await run.locator(".thought *").all_inner_texts() == ["Wait"]
        assert await page.title() == "Proctor"


async def test_injected_scripts_do_not_run(browser: Browser) -> None:
    async with running_server(FakeEngine()) as url:
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(url)
        messages: list[str] = []
        page.on("console", lambda message: messages.append(message.text))
        await page.evaluate(
            """async () => {
                const script = document.createElement("script");
                script.textContent = "document.title = 'hit'";
                document.body.append(script);
                const image = document.createElement("div");
                image.innerHTML = "<img src=x onerror=\\"document.title = 'hit'\\">";
                document.body.append(image);
                await fetch("https://example.com/").catch(() => {});
            }"""
        )
        await expect(page).to_have_title("Proctor")
        assert sum("Content Security Policy" in message for message in messages) >= 3
        await context.close()
