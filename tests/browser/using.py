"""What a person does at the page."""

from playwright.async_api import Locator, Page, expect


async def ask(page: Page, text: str = "How much?") -> Locator:
    """Ask, and give the place of the answer."""
    runs = page.locator(".run")
    before = await runs.count()
    await expect(page.get_by_role("button", name="Send")).to_be_enabled()
    await page.get_by_label("Your prompt").fill(text)
    await page.keyboard.press("Enter")
    return runs.nth(before)


async def choose(page: Page, tier: str, budget: int = 0) -> None:
    """Choose a tier: what the router makes of a prompt is seldom the matter."""
    await page.locator(".budget").nth(budget).get_by_text(tier, exact=True).click()


def field(page: Page, name: str, budget: int = 0) -> Locator:
    """A number of one of the budgets."""
    return page.locator(".budget").nth(budget).get_by_label(name, exact=True)


async def facts(run: Locator) -> dict[str, str]:
    """Wait for the end of a run: what is told of it, by name."""
    await expect(run.locator(".facts")).to_be_visible()
    names = await run.locator("dt").all_inner_texts()
    return dict(zip(names, await run.locator("dd").all_inner_texts(), strict=True))
