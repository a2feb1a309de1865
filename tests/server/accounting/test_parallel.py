"""What several chains use counts for the key, the session, the ledger and the cost."""

from decimal import Decimal
from typing import Any

import httpx
import pytest

from proctor.server.accounting.ledger.store import Store
from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from tests.server.accounting.ledger.records import read_records
from tests.server.auth.keys import bearer, configured_key
from tests.server.harness import CHAT, body, client

PRICES = {"prompt": 0, "thinking": 3, "answer": 1}
THOUGHTS = ("Seven.", "It is eight.", "Eight?")
ANSWERS = ("7", "8", "8")
MAX_TOKENS = 150
MARKERS = 2 * len(ANSWERS)
"""The tokens of the end markers and of the ends of the turn."""


def script(job: Job) -> Script:
    chain = int(job.id.rsplit("-", 1)[1])
    return Script((THOUGHTS[chain],), ANSWERS[chain])


async def ask(http: httpx.AsyncClient, **options: Any) -> httpx.Response:
    thinking = {"parallel": {"chains": 3, "answer": "number"}}
    request = body(max_thinking_tokens=60, max_tokens=MAX_TOKENS, thinking=thinking)
    return await http.post(CHAT, json=request, **options)


async def test_the_ledger_has_the_tokens_of_all_chains(url: str) -> None:
    async with client(FakeEngine(script), ledger={"url": url}, prices=PRICES) as http:
        response = await ask(http)

    (record,) = await read_records(url)
    thinking, answers = sum(map(len, THOUGHTS)), sum(map(len, ANSWERS))
    assert record.choices == 3
    assert record.max_tokens == 60
    assert record.thinking_tokens == thinking
    assert record.answer_tokens == answers
    assert record.completion_tokens == thinking + answers + MARKERS
    assert (record.end_reason, record.finish_reason, record.status) == ("natural", "stop", 200)
    assert record.cost is not None
    assert record.cost.total == Decimal(3 * (thinking + MARKERS) + answers) / 10**6
    assert response.json()["cost"]["total"] == float(record.cost.total)
    assert response.json()["usage"]["completion_tokens"] == record.completion_tokens


async def test_a_key_reserves_what_all_chains_may_use(url: str, store: Store) -> None:
    prompt = 23
    enough, token = configured_key("enough", tokens_per_minute=prompt + MAX_TOKENS)
    short, other = configured_key("short", tokens_per_minute=prompt + MAX_TOKENS - 1)
    async with client(FakeEngine(script), ledger={"url": url}, keys=[enough, short]) as http:
        allowed = await ask(http, headers=bearer(token))
        refused = await ask(http, headers=bearer(other))
    assert allowed.json()["usage"]["prompt_tokens"] == prompt
    assert (allowed.status_code, refused.status_code) == (200, 429)


@pytest.mark.parametrize(("left", "enforced"), [(30, 30), (1000, 60)])
async def test_a_session_limits_all_chains_together(
    url: str, store: Store, left: int, enforced: int
) -> None:
    engine = FakeEngine(script)
    async with client(engine, ledger={"url": url}) as http:
        headers = {"x-session-id": "s", "x-session-max-thinking-tokens": str(left)}
        response = await ask(http, headers=headers)
    (choice,) = response.json()["choices"]
    assert choice["thinking"]["max_tokens"] == enforced
    assert {job.budget.maximum for job in engine.jobs} == {enforced // 3}


async def test_the_estimate_of_a_route_is_that_of_all_chains() -> None:
    async with client(FakeEngine(script), prices=PRICES) as http:
        thinking = {"parallel": {"chains": 3, "answer": "number"}}
        request = body(max_thinking_tokens=60, max_tokens=MAX_TOKENS, thinking=thinking)
        report = (await http.post("/v1/route", json=request)).json()
    assert report["budget"]["max_tokens"] == 60
    assert report["cost"]["least"] == pytest.approx(3 / 10**6)
    assert report["cost"]["most"] == pytest.approx((3 * 60 + MAX_TOKENS - 60) / 10**6)
