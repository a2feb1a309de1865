"""Sessions of agents, over both of their protocols, by the names that they send."""

from typing import Any

import httpx
import pytest

from proctor.server.engines.fake import FakeEngine, Script
from tests.server.harness import client

MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
SECRET = Script(("abcdefghij" * 3,), "yes")
LIMIT = {"x-session-max-thinking-tokens": "40"}
NAME = "6a1f0c52-8d7e-4b8e-9d58-0f2b1c7d9e11"

SAID = {"role": "user", "content": "hi"}
BODIES: dict[str, dict[str, Any]] = {
    MESSAGES: {
        "model": "fake",
        "max_tokens": 1000,
        "messages": [SAID],
        "thinking": {"type": "enabled", "budget_tokens": 30},
    },
    RESPONSES: {"input": "hi", "max_thinking_tokens": 30},
}


def thinking_tokens(answer: httpx.Response) -> int:
    tokens: int = answer.json()["thinking"]["tokens"]
    return tokens


@pytest.mark.parametrize(
    ("path", "fields", "headers"),
    [
        (MESSAGES, {}, {"x-claude-code-session-id": NAME}),
        (MESSAGES, {"metadata": {"user_id": f"user_1_account__session_{NAME}"}}, {}),
        (RESPONSES, {}, {"session-id": NAME}),
        (RESPONSES, {"prompt_cache_key": NAME}, {}),
        (RESPONSES, {"session": {"id": NAME}}, {}),
    ],
)
async def test_an_agents_session_has_one_purse(
    url: str, path: str, fields: dict[str, Any], headers: dict[str, str]
) -> None:
    async with client(FakeEngine(SECRET), ledger={"url": url}) as http:
        answers = [
            await http.post(path, json=BODIES[path] | fields, headers=LIMIT | headers)
            for _ in range(3)
        ]
        report = (await http.get(f"/v1/sessions/{NAME}")).json()

    assert [answer.status_code for answer in answers] == [200] * 3, answers[-1].text
    assert [thinking_tokens(answer) for answer in answers] == [30, 10, 0]
    assert report["used"]["thinking_tokens"] == 40
    assert answers[-1].headers["x-session-thinking-remaining"] == "0"


async def test_both_protocols_and_chats_share_a_session(url: str) -> None:
    headers = LIMIT | {"x-session-id": "one"}
    chat = {"messages": [SAID], "max_thinking_tokens": 30}
    async with client(FakeEngine(SECRET), ledger={"url": url}) as http:
        first = await http.post(MESSAGES, json=BODIES[MESSAGES], headers=headers)
        second = await http.post(RESPONSES, json=BODIES[RESPONSES], headers=headers)
        third = await http.post("/v1/chat/completions", json=chat, headers=headers)

    assert [thinking_tokens(first), thinking_tokens(second)] == [30, 10]
    assert third.json()["choices"][0]["thinking"]["tokens"] == 0


@pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
async def test_a_session_without_requests_left_is_refused(url: str, path: str) -> None:
    headers = {"x-session-id": "one", "x-session-max-requests": "1"}
    async with client(FakeEngine(SECRET), ledger={"url": url}) as http:
        allowed = await http.post(path, json=BODIES[path], headers=headers)
        refused = await http.post(path, json=BODIES[path], headers=headers)

    assert allowed.status_code == 200
    assert refused.status_code == 429
    assert refused.headers["x-should-retry"] == "false"
    assert "requests" in refused.json()["error"]["message"]
