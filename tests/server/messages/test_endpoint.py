"""The Messages API: limits, keys, errors, token counts, and the budget of a turn."""

import re
from typing import Any

import httpx
import pytest

from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from tests.server.auth.keys import configured_key
from tests.server.harness import Gate, client
from tests.server.messages.test_streams import MESSAGES, TOOL, body, engine

COUNT = f"{MESSAGES}/count_tokens"
ENABLED = {"type": "enabled", "budget_tokens": 10}


async def post(over: FakeEngine, path: str = MESSAGES, **fields: Any) -> httpx.Response:
    async with client(over) as http:
        return await http.post(path, json=body(**fields))


async def test_max_tokens_beyond_the_context_are_reduced() -> None:
    response = await post(FakeEngine(context_length=500), max_tokens=32000)

    assert response.status_code == 200
    prompt_tokens = response.json()["usage"]["input_tokens"]
    assert response.headers["x-max-tokens"] == str(500 - prompt_tokens)


async def test_max_tokens_within_the_context_are_kept() -> None:
    response = await post(FakeEngine(), max_tokens=100)

    assert "x-max-tokens" not in response.headers


async def test_a_stop_sequence() -> None:
    response = await post(FakeEngine(Script((), "one two")), stop_sequences=["x", " t"])

    message = response.json()
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", " t")
    assert message["content"] == [{"type": "text", "text": "one"}]


async def test_an_empty_answer_is_an_empty_text() -> None:
    response = await post(FakeEngine(Script((), "")))

    assert response.json()["content"] == [{"type": "text", "text": ""}]
    assert response.json()["stop_reason"] == "end_turn"


async def test_cached_tokens_are_not_input_tokens() -> None:
    usage = (await post(engine(Script()))).json()["usage"]
    counted = (await post(engine(Script()), COUNT)).json()

    assert usage["cache_read_input_tokens"] == 3
    assert usage["input_tokens"] + 3 == counted["input_tokens"]


async def test_fields_that_are_ignored_are_listed() -> None:
    response = await post(FakeEngine(), container="x", metadata={"user_id": "u"})

    assert response.headers["x-ignored-fields"] == "container, metadata"


@pytest.mark.parametrize(
    ("fields", "status", "kind", "named"),
    [
        ({"max_tokens": 0}, 400, "invalid_request_error", "max_tokens"),
        ({"model": "other"}, 404, "not_found_error", "other"),
        ({"budget_tier": "none-such"}, 400, "invalid_request_error", "budget_tier"),
        ({"thinking": ENABLED, "max_thinking_tokens": 5}, 400, "invalid_request_error", "thinking"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}},
            400,
            "invalid_request_error",
            "tool_choice",
        ),
        (
            {
                "budget_tier": "high",
                "output_config": {"effort": "low"},
            },
            400,
            "invalid_request_error",
            "output_config.effort",
        ),
    ],
)
async def test_errors(fields: dict[str, Any], status: int, kind: str, named: str) -> None:
    response = await post(engine(Script()), **fields)

    assert response.status_code == status
    error = response.json()
    assert (error["type"], error["error"]["type"]) == ("error", kind)
    assert named in error["error"]["message"]


@pytest.mark.parametrize(("length", "named"), [(600, 600), (50_000, 50_000 // 64)])
async def test_a_prompt_that_is_too_long_is_refused_as_claude_code_expects(
    length: int, named: int
) -> None:
    messages = [{"role": "user", "content": "x" * length}]
    response = await post(FakeEngine(context_length=500), messages=messages)

    assert response.status_code == 400
    message = response.json()["error"]["message"]
    found = re.fullmatch(r"prompt is too long: (\d+) tokens > 499 maximum", message)
    assert found is not None, message
    assert named <= int(found[1]) < named + 100


async def test_a_request_that_takes_too_long() -> None:
    gate = Gate(2)
    async with client(FakeEngine(before_token=gate)) as http:
        response = await http.post(MESSAGES, json=body(), headers={"x-request-timeout": "0.05"})

    assert response.status_code == 504
    assert response.json()["error"]["type"] == "timeout_error"


async def test_text_outside_ascii_survives_both_ways() -> None:
    said = "Grüße, 世界 \N{SMILING FACE WITH SUNGLASSES}\u2028\x85"
    over = FakeEngine(Script((said,), said), tokens_per_delta=3)
    fields: dict[str, Any] = {
        "messages": [{"role": "user", "content": said}],
        "thinking": ENABLED | {"budget_tokens": 90},
    }
    whole = await post(over, **fields)
    (thinking, answer) = whole.json()["content"]
    prompt = bytes(token for token in over.jobs[0].prompt_ids if token < 256)

    assert (thinking["thinking"], answer["text"]) == (said, said)
    assert said.encode() in prompt


async def test_unknown_paths_and_methods_have_errors_in_the_same_format() -> None:
    async with client(FakeEngine()) as http:
        batches = await http.post(f"{MESSAGES}/batches", json={})
        wrong_method = await http.get(MESSAGES)

    assert batches.json()["error"]["type"] == "not_found_error"
    assert wrong_method.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
async def test_keys(header: str) -> None:
    key, token = configured_key()
    value = f"Bearer {token}" if header == "authorization" else token
    async with client(FakeEngine(), keys=[key]) as http:
        allowed = await http.post(MESSAGES, json=body(), headers={header: value})
        denied = await http.post(MESSAGES, json=body(), headers={header: value + "x"})

    assert allowed.status_code == 200
    assert denied.json()["error"]["type"] == "authentication_error"


async def test_a_request_with_claude_codes_query_and_headers() -> None:
    async with client(FakeEngine()) as http:
        response = await http.post(
            f"{MESSAGES}?beta=true",
            json=body(),
            headers={"anthropic-version": "2023-06-01", "anthropic-beta": "whatever-2030-01-01"},
        )

    assert response.status_code == 200


async def continued(http: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    """Begin a turn, and send its first message back with the result of a tool."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
    first = await http.post(MESSAGES, json=body(messages=messages, thinking=ENABLED))
    content = first.json()["content"]
    content[0] |= changes
    messages += [
        {"role": "assistant", "content": [content[0], {**USE, "input": {}}]},
        {"role": "user", "content": [RESULT]},
    ]
    return await http.post(MESSAGES, json=body(messages=messages, thinking=ENABLED))


USE = {"type": "tool_use", "id": "1", "name": "add"}
RESULT = {"type": "tool_result", "tool_use_id": "1", "content": "3"}


def budgets(jobs: list[Job]) -> list[int | None]:
    return [job.budget.maximum for job in jobs]


async def test_a_turn_has_one_budget_across_its_calls() -> None:
    over = FakeEngine(Script(("seven..",)))
    async with client(over) as http:
        response = await continued(http)

    assert budgets(over.jobs) == [10, 3]
    thinking = response.json()["thinking"]
    assert (thinking["tokens"], thinking["clamped"]) == (3, True)


async def test_thinking_without_its_text_still_counts() -> None:
    over = FakeEngine(Script(("seven..",)))
    async with client(over) as http:
        await continued(http, thinking="")

    assert budgets(over.jobs) == [10, 3]


async def test_thinking_without_its_signature_is_counted_again() -> None:
    over = FakeEngine(Script(("seven..",)))
    async with client(over) as http:
        await continued(http, signature="from another server")

    assert budgets(over.jobs) == [10, 3]


async def test_omitted_thinking_is_in_the_next_prompt() -> None:
    over = FakeEngine(Script(("Secret.",)))
    thinking = {**ENABLED, "display": "omitted"}
    async with client(over) as http:
        first = (await http.post(MESSAGES, json=body(thinking=thinking))).json()
        messages = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [first["content"][0], {**USE, "input": {}}]},
            {"role": "user", "content": [RESULT]},
        ]
        await http.post(MESSAGES, json=body(messages=messages, thinking=thinking))

    assert budgets(over.jobs) == [10, 3]
