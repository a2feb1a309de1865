"""The page at `/`: sending prompts, and what it shows of the thinking and the answer."""

import re

import pytest
from playwright.async_api import Browser, expect

from proctor.server.config.prices import Prices
from proctor.server.engines.fake import FakeEngine, Script
from tests.browser.actions import ask, choose, field, wait_for_facts
from tests.browser.pages import open_gateway_page, open_page
from tests.engine.gateway import Gateway
from tests.server.harness import Gate, with_timeout

pytestmark = pytest.mark.asyncio(loop_scope="package")

COUNTING = " ".join(map(str, range(200)))
"""A thinking without loops and sentence ends."""


async def test_thinking_and_answer_are_separate(browser: Browser) -> None:
    async with open_gateway_page(
        browser, FakeEngine(Script(("Let me see.",), "It is 42."))
    ) as page:
        await choose(page, "low")
        run = await ask(page)
        facts = await wait_for_facts(run)

        await expect(run.get_by_role("group", name="Text of the thinking")).to_have_text(
            "Let me see."
        )
        await expect(run.get_by_role("group", name="Answer")).to_have_text("It is 42.")
        await expect(run.get_by_role("status")).to_have_text("Done.")

    assert facts["End reason"] == "The model ended its thinking on its own."
    assert facts["Thinking"] == "11 tokens: 11 sampled, 0 forced"
    assert facts["Budget"] == "tier low; at most 512 tokens"
    assert re.fullmatch(
        r"\d+ prompt tokens; 22 generated in \d+\.\d s \([\d,]+ tokens/s\)", facts["Usage"]
    )
    assert facts["Cost"] == "unknown: the server has no prices set"


async def test_a_meter_shows_the_thinking_tokens(browser: Browser) -> None:
    gate = Gate(5)
    engine = FakeEngine(Script(("Let me see.",), "x"), before_token=gate)
    async with open_gateway_page(browser, engine) as page:
        await field(page, "Minimum").fill("10")
        await field(page, "Maximum").fill("20")
        run = await ask(page)
        await with_timeout(gate.reached.wait())
        meter = run.get_by_role("meter")

        await expect(run.get_by_role("status")).to_have_text("Thinking.")
        await expect(meter).to_have_attribute(
            "aria-valuetext", "about 5 tokens, at least 10, at most 20"
        )
        await expect(meter).to_have_attribute("aria-valuenow", "5")
        await expect(meter).to_have_attribute("aria-valuemax", "20")
        box, used, minimum = [
            await run.locator(part).bounding_box() for part in (".meter", ".used", ".minimum")
        ]
        assert box
        assert used
        assert minimum
        assert used["width"] == pytest.approx(box["width"] / 4, abs=1)
        assert minimum["x"] - box["x"] == pytest.approx(box["width"] / 2, abs=1)
        await expect(run.locator(".clock")).to_have_text(
            re.compile(r"^\d+\.\d s, about \d+ tokens/s$")
        )
        gate.opened.set()
        await wait_for_facts(run)
        await expect(meter).to_have_attribute(
            "aria-valuetext", "11 tokens, at least 10, at most 20"
        )
        await expect(run.locator(".count")).to_have_text("11 tokens")


async def test_the_slider_lowers_the_maximum(browser: Browser) -> None:
    async with open_gateway_page(browser, FakeEngine(Script((COUNTING,), "42"))) as page:
        await choose(page, "low")
        await field(page, "Maximum").fill("200")
        first = await ask(page)
        await wait_for_facts(first)
        slider = field(page, "Maximum, as a slider")
        await slider.focus()
        for _ in range(5):
            await page.keyboard.press("ArrowLeft")
        cap = int(await field(page, "Maximum").input_value())
        await expect(slider).to_have_attribute("aria-valuetext", f"{cap} tokens")
        second = await ask(page)
        facts = await wait_for_facts(second)

        assert 0 < cap < 200
        await expect(first.locator(".thought")).to_have_text(COUNTING[:200])
        await expect(second.locator(".thought")).to_have_text(COUNTING[:cap])
    assert facts["End reason"] == f"The thinking reached its maximum of {cap} tokens."
    assert facts["Thinking"] == f"{cap} tokens: {cap} sampled, 0 forced; the end marker was forced"


async def test_forced_texts_are_marked(browser: Browser) -> None:
    engine = FakeEngine(Script(("☃🙂 one. ", COUNTING), "42"))
    budget = {"wrap_up_text": "So 🙂", "landing": "hard"}
    async with open_gateway_page(browser, engine, overrides={"budget": budget}) as page:
        await choose(page, "low")
        await field(page, "Maximum").fill("60")
        await field(page, "Continuations").fill("1")
        run = await ask(page)
        facts = await wait_for_facts(run)

        await expect(run.locator("mark")).to_have_text(["Wait", "So 🙂"])
        await expect(run.get_by_title("Continuation inserted by the server")).to_have_text("Wait")
        await expect(run.get_by_title("Wrap-up inserted by the server")).to_have_text("So 🙂")
        thought = re.compile("^☃🙂 one. Wait0 1 2.*So 🙂$")
        await expect(run.locator(".thought")).to_have_text(thought)
    forced = len("Wait") + len("So 🙂".encode())
    assert facts["Thinking"] == (
        f"60 tokens: {60 - forced} sampled, {forced} forced; 1 continuation; "
        "the end marker was forced"
    )


async def test_auto_is_the_first_tier(browser: Browser) -> None:
    async with open_gateway_page(browser, FakeEngine()) as page:
        tiers = page.get_by_role("radiogroup", name="Tier").get_by_role("radio")
        assert await tiers.first.input_value() == "auto"
        await choose(page, "auto")
        run = await ask(page, "Prove that there are infinitely many primes.")
        facts = await wait_for_facts(run)

        await expect(run.get_by_role("heading")).to_have_text("tier auto (high)")
    assert re.match(r"tier high, chosen by the router \(level “high”, \d+%\)", facts["Budget"])


@pytest.mark.parametrize(
    ("name", "value", "tier", "cause"),
    [
        ("Minimum", "1000", "medium", "the minimum"),
        ("Continuations", "1", "low", "the continuations"),
    ],
)
async def test_what_raised_the_tier_of_the_router_is_said(
    browser: Browser, name: str, value: str, tier: str, cause: str
) -> None:
    async with open_gateway_page(browser, FakeEngine(Script((COUNTING * 10,), "42"))) as page:
        await choose(page, "auto")
        await field(page, name).fill(value)
        facts = await wait_for_facts(await ask(page, "Hello"))

    raised = rf"tier {tier}; the router chose none \(level “none”, \d+%\), raised by {cause};"
    assert re.match(raised, facts["Budget"])


async def test_placeholders_show_the_budget_of_the_tier(browser: Browser) -> None:
    async with open_gateway_page(browser, FakeEngine()) as page:
        await choose(page, "high")

        await expect(field(page, "Minimum")).to_have_attribute("placeholder", "256")
        await expect(field(page, "Maximum")).to_have_attribute("placeholder", "8192")
        await expect(field(page, "Continuations")).to_have_attribute("placeholder", "0")


async def test_the_cost_is_shown(browser: Browser) -> None:
    prices = Prices(prompt=0, thinking=2, answer=10).model_dump(mode="json")
    engine = FakeEngine(Script(("four",), "two"))
    async with open_gateway_page(browser, engine, overrides={"prices": prices}) as page:
        await choose(page, "low")
        facts = await wait_for_facts(await ask(page))

    # A marker and an end of turn cost the same as thinking.
    assert facts["Cost"] == (
        "0.000042 USD (prompt 0 USD, thinking 0.000012 USD, answer 0.00003 USD)"
    )


async def test_side_by_side_sends_one_prompt_with_two_budgets(browser: Browser) -> None:
    async with open_gateway_page(browser, FakeEngine(Script((COUNTING,), "42"))) as page:
        await choose(page, "low")
        await page.get_by_role("switch", name="Side by side").check()
        await choose(page, "low", budget=1)
        await field(page, "Maximum").fill("5")
        await field(page, "Maximum", budget=1).fill("20")
        await page.get_by_label("Temperature").fill("0.5")
        await ask(page)
        runs = page.locator(".run")
        for side, cap in enumerate((5, 20)):
            await wait_for_facts(runs.nth(side))
            await expect(runs.nth(side).locator(".thought")).to_have_text(COUNTING[:cap])
        await expect(runs.get_by_role("heading")).to_have_text(
            ["A: tier low, at most 5", "B: tier low, at most 20"]
        )
        boxes = [await runs.nth(side).bounding_box() for side in (0, 1)]

    left, right = boxes
    assert left
    assert right
    assert left["x"] + left["width"] < right["x"]
    assert left["y"] == right["y"]


async def test_each_side_continues_its_own_conversation(browser: Browser) -> None:
    engine = FakeEngine(lambda job: Script(("x",), "deep" if job.budget.maximum else "quick"))
    async with open_gateway_page(browser, engine) as page:
        await page.get_by_role("switch", name="Side by side").check()
        await choose(page, "low")
        await choose(page, "none", budget=1)
        for turn in (0, 1):
            await ask(page, f"question {turn}")
            for side in (0, 1):
                await wait_for_facts(page.locator(".run").nth(2 * turn + side))

    prompts = {bytes(t for t in job.prompt_ids if t < 256).decode() for job in engine.jobs[2:]}
    for answer, other in (("deep", "quick"), ("quick", "deep")):
        (own,) = (text for text in prompts if f"assistant\n{answer}" in text)
        assert "question 0" in own
        assert other not in own


@pytest.mark.parametrize("remembers", [True, False])
async def test_previous_messages_are_sent_if_the_switch_is_on(
    browser: Browser, remembers: bool
) -> None:
    engine = FakeEngine(Script(("x",), "It is 42."))
    overrides = {"page": {"remembers": not remembers}}
    async with open_gateway_page(browser, engine, overrides=overrides) as page:
        await page.get_by_role("switch", name="Send previous messages").click()
        for text in ("first", "second"):
            await wait_for_facts(await ask(page, text))
        await page.get_by_role("button", name="New chat").click()
        await expect(page.locator(".turn")).to_have_count(0)
        await wait_for_facts(await ask(page, "third"))

    _, second, third = ({*_words(job.prompt_ids)} for job in engine.jobs)
    assert ({"first", "42."} <= second) is remembers
    assert third.isdisjoint({"first", "second"})


async def test_a_question_that_was_stopped_while_thinking_stays_in_the_conversation(
    browser: Browser,
) -> None:
    gate = Gate(5)
    engine = FakeEngine(Script((COUNTING,), "It is 42."), before_token=gate)
    async with open_gateway_page(browser, engine, overrides={"page": {"remembers": True}}) as page:
        await choose(page, "low")
        stopped = await ask(page, "first")
        await with_timeout(gate.reached.wait())
        await page.get_by_role("button", name="Stop").click()
        await expect(stopped.get_by_role("status")).to_contain_text("Stopped.")
        gate.opened.set()
        facts = await wait_for_facts(await ask(page, "second"))

    assert [word for word in _words(engine.jobs[-1].prompt_ids) if word in ("first", "second")] == [
        "first",
        "second",
    ]
    assert "Left out" not in facts


async def test_a_question_whose_request_failed_is_left_out_and_that_is_said(
    browser: Browser,
) -> None:
    engine = FakeEngine(Script(("x",), "It is 42."))
    overrides = {"page": {"remembers": True}}
    async with open_gateway_page(browser, engine, overrides=overrides) as page:
        await choose(page, "low")
        too_long = await ask(page, "first " * 20_000)
        await expect(too_long.locator(".error")).to_contain_text("rejected the request")
        facts = await wait_for_facts(await ask(page, "second"))

    assert "first" not in _words(engine.jobs[-1].prompt_ids)
    assert facts["Left out"] == "1 earlier question, whose request failed"


def _words(token_ids: tuple[int, ...]) -> list[str]:
    return bytes(token if token < 256 else ord(" ") for token in token_ids).decode().split()


async def test_an_example_fills_the_prompt(browser: Browser) -> None:
    async with open_gateway_page(
        browser, FakeEngine(), overrides={"page": {"examples": ["2 + 2?"]}}
    ) as page:
        await page.get_by_role("button", name="2 + 2?").click()

        await expect(page.get_by_label("Your prompt")).to_have_value("2 + 2?")
        await expect(page.get_by_label("Your prompt")).to_be_focused()


async def test_the_demo_model_on_the_page(browser: Browser, vllm_gateway: Gateway) -> None:
    async with open_page(browser, vllm_gateway.url) as page:
        await page.locator("#examples button").first.click()
        await field(page, "Continuations").fill("2")
        await page.get_by_label("Temperature").fill("0")
        await page.get_by_role("button", name="Send").click()
        run = page.locator(".run")
        facts = await wait_for_facts(run)

        await expect(run.locator("mark").first).to_have_text("Wait")
        await expect(run.locator(".answer-text")).to_have_text("The answer is 35.")
        assert "continuation" in facts["Thinking"]
        await choose(page, "none")
        await field(page, "Continuations").fill("")
        second = await ask(page, await page.locator(".prompt").inner_text())
        assert (await wait_for_facts(second))["Thinking"] == "none"
