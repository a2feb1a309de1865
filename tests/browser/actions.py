"""Actions of a user on the chat page."""

from playwright.async_api import Locator, Page, expect


async def ask(page: Page, text: str = "How much?") -> Locator:
    """Send a prompt, and return the element of its run."""
    runs = page.locator(".run")
    before = await runs.count()
    await expect(page.get_by_role("button", name="Send")).to_be_enabled()
    await page.get_by_label("Your prompt").fill(text)
    await page.keyboard.press("Enter")
    return runs.nth(before)


async def choose(page: Page, tier: str, budget: int = 0) -> None:
    """Select a tier, for tests that must not depend on the router."""
    await page.locator(".budget").nth(budget).get_by_text(tier, exact=True).click()


def field(page: Page, name: str, budget: int = 0) -> Locator:
    """Return a number field of one of the budgets."""
    return page.locator(".budget").nth(budget).get_by_label(name, exact=True)


async def wait_for_facts(run: Locator) -> dict[str, str]:
    """Wait for the end of a run, and return its facts by name."""
    await expect(run.locator(".facts")).to_be_visible()
    names = await run.locator("dt").all_inner_texts()
    return dict(zip(names, await run.locator("dd").all_inner_texts(), strict=True))
