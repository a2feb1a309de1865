"""Sessions over HTTP: clamped thinking, shortened answers, 429, and what the server tells."""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from string import ascii_lowercase
from typing import Any

import httpx
import pytest

from proctor.router import LEVELS
from proctor.server.config.budgets import Efforts
from proctor.server.engines.fake import FakeEngine, Script
from tests.server.accounting.ledger.records import read_records
from tests.server.auth.keys import bearer, configured_key
from tests.server.harness import CHAT, Gate, advance_clock, body, client, parse_events, with_timeout

COMPLETIONS = "/v1/completions"
PRICES = {"prompt": 1000, "thinking": 1000, "answer": 1000}
"""A thousandth of a dollar for each token."""

LONG = Script(("".join(Random(1).choices(ascii_lowercase, k=400)),), "yes")
"""More thinking than most limits of the tests; without a loop."""


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with client(FakeEngine(LONG), ledger={"url": url}, prices=PRICES) as connected:
        yield connected


def session(**fields: Any) -> dict[str, Any]:
    return {"session": {"id": "s", **fields}}


def tokens_of(answer: httpx.Response) -> tuple[int, int]:
    """Return the thinking tokens and all tokens of an answer."""
    usage = answer.json()["usage"]
    thinking: int = usage["completion_tokens_details"]["reasoning_tokens"]
    return thinking, usage["total_tokens"]


async def test_the_thinking_is_clamped_to_what_the_session_has_left(
    http: httpx.AsyncClient, url: str
) -> None:
    answers = [
        await http.post(CHAT, json=body(max_thinking_tokens=80, **session(max_thinking_tokens=100)))
        for _ in range(4)
    ]

    assert [answer.status_code for answer in answers] == [200] * 4, answers[-1].text
    assert [tokens_of(answer)[0] for answer in answers] == [80, 20, 0, 0]
    left = [answer.headers["x-session-thinking-remaining"] for answer in answers]
    assert left == ["100", "20", "0", "0"]
    thinking = [answer.json()["choices"][0]["thinking"] for answer in answers]
    assert [each["clamped"] for each in thinking] == [False, True, True, True]
    assert [each["max_tokens"] for each in thinking] == [80, 20, 0, 0]
    assert answers[-1].json()["choices"][0]["message"]["content"] == "yes"
    assert {answer.headers["x-session-id"] for answer in answers} == {"s"}
    card = (await http.get("/v1/sessions/s")).json()
    assert (card["used"]["thinking_tokens"], card["remaining"]["thinking_tokens"]) == (100, 0)
    rows = await read_records(url)
    assert [row.clamped_by for row in rows] == ["", "session", "session", "session"]
    assert {row.session for row in rows} == {"s"}


async def test_unlimited_thinking_is_capped_and_shared_by_the_choices(
    http: httpx.AsyncClient,
) -> None:
    answer = await http.post(CHAT, json=body(n=3, **session(max_thinking_tokens=100)))
    rest = await http.post(CHAT, json=body(**session()))

    reports = [choice["thinking"] for choice in answer.json()["choices"]]
    assert [(each["tokens"], each["max_tokens"], each["clamped"]) for each in reports] == [
        (33, 33, True)
    ] * 3
    assert tokens_of(rest)[0] == 1


async def test_a_limit_that_changes_nothing_is_not_reported(http: httpx.AsyncClient) -> None:
    answer = await http.post(CHAT, json=body(**session(max_thinking_tokens=10**6)))

    (choice,) = answer.json()["choices"]
    assert (choice["thinking"]["clamped"], choice["thinking"]["tokens"]) == (False, 400)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("limits", [{"max_tokens": 120}, {"max_cost": 0.12}])
async def test_the_answer_is_shortened_and_then_refused(
    path: str, limits: dict[str, Any], http: httpx.AsyncClient
) -> None:
    request = body() if path == CHAT else {"model": "fake", "prompt": "0123456789", "n": 2}
    request |= {"max_tokens": 30 if path == COMPLETIONS else 70, **session(**limits)}
    answers = [await http.post(path, json=request) for _ in range(4)]

    *good, last = answers
    used = sum(tokens_of(answer)[1] for answer in good if answer.status_code == 200)
    assert used <= 120
    assert answers[0].status_code == 200
    assert last.status_code == 429
    error = last.json()["error"]
    assert (error["code"], error["type"]) == ("session_limit_exceeded", "rate_limit_error")
    assert "of this session are left" in error["message"]
    assert last.headers["x-should-retry"] == "false"
    assert last.headers["x-session-id"] == "s"
    refused = "tokens" if "max_tokens" in limits else "cost"
    metrics = (await http.get("/metrics")).text
    assert f'proctor_session_refused_total{{limit="{refused}"}}' in metrics
    assert f'proctor_session_refused_total{{limit="{refused}"}} 0.0' not in metrics


async def test_requests_are_counted(http: httpx.AsyncClient) -> None:
    statuses = [
        (await http.post(CHAT, json=body(**session(max_requests=2)))).status_code for _ in range(3)
    ]

    assert statuses == [200, 200, 429]


async def test_the_time_of_a_session_ends_its_running_request(url: str) -> None:
    gate = Gate(3)
    async with client(FakeEngine(LONG, before_token=gate), ledger={"url": url}) as http:
        running = await http.post(CHAT, json=body(**session(max_seconds=0.3)))
        gate.opened.set()
        late = await http.post(CHAT, json=body(**session()))

    assert (running.status_code, late.status_code) == (504, 429)
    assert "the 0.3 s of this session have passed" in late.json()["error"]["message"]


async def test_a_later_request_can_lower_the_limits_but_not_raise_them(
    http: httpx.AsyncClient,
) -> None:
    for limits in ({"max_thinking_tokens": 50}, {"max_thinking_tokens": 500}, {}):
        await http.post(CHAT, json=body(max_thinking_tokens=10, **session(**limits)))
        card = (await http.get("/v1/sessions/s")).json()
        assert card["limits"]["max_thinking_tokens"] == 50
    await http.post(CHAT, json=body(max_thinking_tokens=10, **session(max_thinking_tokens=35)))
    card = (await http.get("/v1/sessions/s")).json()

    assert card["limits"]["max_thinking_tokens"] == 35
    assert card["used"]["thinking_tokens"] == 35


async def test_a_stream_tells_what_was_left(http: httpx.AsyncClient) -> None:
    headers = {"x-claude-code-session-id": "agent", "x-session-max-thinking-tokens": "60"}
    request = body(stream=True, stream_options={"include_usage": True})
    answers = [await http.post(CHAT, json=request, headers=headers) for _ in range(2)]

    assert [answer.headers["x-session-thinking-remaining"] for answer in answers] == ["60", "0"]
    usage = [parse_events(answer.text)[-2].data["usage"] for answer in answers]
    thinking = [each["completion_tokens_details"]["reasoning_tokens"] for each in usage]
    assert thinking == [60, 0]


async def test_running_requests_count_with_their_worst_case(url: str) -> None:
    gate = Gate(5)
    async with client(FakeEngine(LONG, before_token=gate), ledger={"url": url}) as http:
        limited = session(max_thinking_tokens=100, max_tokens=300)
        first = asyncio.create_task(
            http.post(CHAT, json=body(max_thinking_tokens=90, max_tokens=260, **limited))
        )
        await with_timeout(gate.reached.wait())
        card = (await http.get("/v1/sessions/s")).json()
        refused = await http.post(CHAT, json=body(messages=[user("x" * 50)], **limited))
        gate.opened.set()
        assert (await first).status_code == 200
        after = await http.post(CHAT, json=body(messages=[user("x" * 50)], **limited))

    assert card["reserved"]["thinking_tokens"] == 90
    assert card["remaining"]["thinking_tokens"] == 10
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "5"
    assert "are reserved for running requests" in refused.json()["error"]["message"]
    assert after.status_code == 200


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancelled_request_is_charged_with_what_it_has_generated(
    stream: bool, url: str
) -> None:
    gate = Gate(30)
    async with client(FakeEngine(LONG, before_token=gate), ledger={"url": url}) as http:
        request = body(stream=stream, **session(max_thinking_tokens=100))
        running = asyncio.create_task(
            http.post(CHAT, json=request, headers={"x-request-timeout": "1000"})
        )
        await with_timeout(gate.reached.wait())
        advance_clock(1000)
        cut = await running
        gate.opened.set()
        again = await http.post(CHAT, json=body(**session()))

    assert "timeout" in cut.text
    (row, _) = await read_records(url)
    assert row.thinking_tokens > 0
    assert tokens_of(again)[0] == 100 - row.thinking_tokens


async def test_metrics_count_reduced_requests_and_active_sessions(url: str) -> None:
    gate = Gate(5)
    async with client(FakeEngine(LONG, before_token=gate), ledger={"url": url}) as http:
        request = body(**session(max_thinking_tokens=50))
        running = asyncio.create_task(http.post(CHAT, json=request))
        await with_timeout(gate.reached.wait())
        during = (await http.get("/metrics")).text
        gate.opened.set()
        await running
        after = (await http.get("/metrics")).text

    assert "proctor_active_sessions 1.0" in during
    assert "proctor_active_sessions 0.0" in after
    assert 'proctor_session_reduced_total{limit="thinking_tokens"} 1.0' in after
    assert 'proctor_session_reduced_total{limit="tokens"} 0.0' in after


async def test_money_under_a_price_by_the_hour_is_time(url: str) -> None:
    gate = Gate(3)
    overrides = {"ledger": {"url": url}, "compute": {"per_hour": 3600}}
    async with client(FakeEngine(LONG, before_token=gate), **overrides) as http:
        cut = await http.post(CHAT, json=body(**session(max_cost=0.2)))
        late = await http.post(CHAT, json=body(**session()))

    assert cut.status_code == 504
    assert "did not finish within 0.2 s" in cut.json()["error"]["message"]
    assert late.status_code == 429


async def test_an_implicit_name_is_only_recorded(url: str) -> None:
    """It neither fails a request nor looks anything up, as long as nothing limits it."""
    async with client(FakeEngine(LONG), ledger={"url": url}) as http:
        for fields in (
            {"prompt_cache_key": "cached"},
            {"prompt_cache_key": "no name", "user": "u"},
        ):
            answer = await http.post(CHAT, json=body(**fields))
            assert answer.status_code == 200
            assert "x-session-thinking-remaining" not in answer.headers
        card = (await http.get("/v1/sessions/cached")).json()

    assert [row.session for row in await read_records(url)] == ["cached", None]
    assert card["used"]["requests"] == 1
    assert set(card["limits"].values()) == {None}


@pytest.mark.parametrize(
    ("fields", "headers", "param"),
    [
        ({"session": {"max_requests": 1}}, {}, "session.id"),
        ({"session": {"id": "a b"}}, {}, "session.id"),
        ({"session": {"id": "a", "max_cost": 1}}, {}, "session.max_cost"),
        ({"session": {"id": "a", "most": 1}}, {}, "session.most"),
        ({}, {"x-session-id": "a", "x-session-max-tokens": "0"}, "x-session-max-tokens"),
    ],
)
async def test_limits_that_cannot_be_kept_are_refused_by_name(
    fields: dict[str, Any], headers: dict[str, str], param: str, url: str
) -> None:
    async with client(FakeEngine(LONG), ledger={"url": url}) as http:
        answer = await http.post(CHAT, json=body(**fields), headers=headers)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_without_a_ledger_limits_are_refused_and_names_ignored() -> None:
    async with client(FakeEngine(LONG)) as http:
        refused = await http.post(CHAT, json=body(**session(max_requests=1)))
        named = await http.post(CHAT, json=body(), headers={"x-session-id": "s"})
        missing = await http.get("/v1/sessions/s")

    assert (refused.status_code, named.status_code, missing.status_code) == (400, 200, 404)
    assert "no ledger" in refused.json()["error"]["message"]


async def test_each_key_has_sessions_of_its_own_and_limits_for_each(url: str) -> None:
    one, token = configured_key("one", session={"max_thinking_tokens": 30})
    two, other = configured_key("two")
    boss, admin = configured_key("boss", "admin")
    overrides = {"ledger": {"url": url}, "keys": [one, two, boss]}
    async with client(FakeEngine(LONG), **overrides) as http:

        async def thinks(token: str, **fields: Any) -> int:
            answer = await http.post(CHAT, json=body(**fields), headers=bearer(token))
            return tokens_of(answer)[0]

        assert [await thinks(token, prompt_cache_key="s") for _ in range(2)] == [30, 0]
        # A higher limit of the client changes nothing, and a new session is new.
        assert await thinks(token, session={"id": "s", "max_thinking_tokens": 90}) == 0
        assert await thinks(token, prompt_cache_key="t") == 30
        # A request without a name is a session by itself.
        assert [await thinks(token) for _ in range(2)] == [30, 30]
        assert await thinks(other, prompt_cache_key="s") == 400
        shown = {
            name: await http.get(f"/v1/sessions/s{query}", headers=bearer(key))
            for name, key, query in (
                ("own", token, ""),
                ("named", token, "?key=one"),
                ("other", other, ""),
                ("foreign", other, "?key=one"),
                ("admin", admin, "?key=one"),
                ("missing", admin, ""),
            )
        }

    statuses = {name: answer.status_code for name, answer in shown.items()}
    assert statuses == {
        "own": 200,
        "named": 200,
        "other": 200,
        "foreign": 403,
        "admin": 200,
        "missing": 404,
    }
    assert shown["own"].json()["used"]["thinking_tokens"] == 30
    assert shown["other"].json()["used"]["thinking_tokens"] == 400
    assert shown["admin"].json() | {"last": 0} == shown["own"].json() | {"last": 0}


async def test_all_requests_of_a_single_session_key_are_one_session(url: str) -> None:
    key, token = configured_key("agent", session={"single": True, "max_requests": 2})
    async with client(FakeEngine(LONG), ledger={"url": url}, keys=[key]) as http:
        headers = bearer(token)
        other = await http.post(CHAT, json=body(**session()), headers=headers)
        statuses = [
            (await http.post(CHAT, json=body(**fields), headers=headers)).status_code
            for fields in ({"prompt_cache_key": "a"}, {"session": {"id": "agent"}}, {})
        ]

    assert statuses == [200, 200, 429]
    assert other.status_code == 400
    assert "are the session 'agent', not 's'" in other.json()["error"]["message"]


async def test_a_tier_limits_what_a_session_uses_in_it(url: str) -> None:
    tiers = [
        {"name": "low", "max_tokens": 20},
        {"name": "high", "max_tokens": 60, "session": {"max_thinking_tokens": 70}},
    ]
    overrides = {
        "tiers": tiers,
        "efforts": dict.fromkeys(Efforts.model_fields, "low"),
        "router": {"levels": dict.fromkeys(LEVELS, "low")},
    }
    async with client(FakeEngine(LONG), ledger={"url": url}, **overrides) as http:
        thinking = [
            tokens_of(await http.post(CHAT, json=body(budget_tier=tier, prompt_cache_key="s")))[0]
            for tier in ("high", "low", "high", "high", "low")
        ]
        route = await http.post("/v1/route", json=body(budget_tier="high", prompt_cache_key="s"))
        card = (await http.get("/v1/sessions/s")).json()

    assert thinking == [60, 20, 10, 0, 20]
    assert route.json()["clamped_by"] == ["session"]
    totals = {each["tier"]: each["thinking_tokens"] for each in card["tiers"]}
    assert totals == {"high": 70, "low": 40}
