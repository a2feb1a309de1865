"""Streams of the Responses API, against the grammar of the protocol and the SDK's accumulator."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.errors import (
    ApiError,
    BadRequest,
    ContextTooLong,
    DeadlineExceeded,
    Overloaded,
    QuotaExceeded,
)
from proctor.server.schemas.openai_responses.progress import is_progress
from proctor.server.schemas.openai_responses.response import to_response_error
from tests.server.harness import Gate, client, parse_events, running_server
from tests.server.responses.asking import RESPONSES, TOOLS, body, engine, post, sdk_of
from tests.server.responses.grammar import Parser

HIDDEN = {"exclude": True}
NAMES = ("add", "agents__spawn", "unknown")

texts = st.text(st.characters(codec="utf-8", exclude_characters="<>"), max_size=12)
arguments = st.dictionaries(st.sampled_from("abc"), texts | st.integers(), max_size=2)


def call(name: str, value: Any) -> str:
    content = json.dumps({"name": name, "arguments": value}, ensure_ascii=False)
    return f"<tool_call>\n{content}\n</tool_call>"


calls = st.builds(call, st.sampled_from(NAMES), arguments)
custom_calls = st.builds(call, st.just("patch"), texts.map(lambda text: {"input": text}))
answers = st.lists(texts | calls | custom_calls, max_size=4).map("".join)
thoughts = st.lists(texts, min_size=1, max_size=2)
fields = st.fixed_dictionaries(
    {},
    optional={
        "max_output_tokens": st.integers(1, 200),
        "reasoning": st.sampled_from([{"summary": "auto"}, {"effort": "none"}, HIDDEN, {}]),
        "thinking": st.sampled_from(
            [{"budget_tokens": 4}, {"type": "auto"}, {"continuations": 1}, {"min_tokens": 3}]
        ),
        "stop": st.lists(st.text(min_size=1, max_size=2), max_size=2),
        "tools": st.just(TOOLS),
        "parallel_tool_calls": st.booleans(),
        "top_logprobs": st.integers(0, 2),
    },
)


def without_ids(response: dict[str, Any]) -> dict[str, Any]:
    """Return what is the same in each response: no ids and times, and no records, which have both.

    Of hidden thinking, a stream has more lines of progress.
    """
    plain = {name: value for name, value in response.items() if name not in ("id", "completed_at")}
    plain["output"] = [{**item} for item in response["output"]]
    for item in plain["output"]:
        for name in ("id", "call_id", "encrypted_content"):
            item.pop(name, None)
        for part in item.get("summary", ()):
            if is_progress(part["text"]):
                part["text"] = part["text"].splitlines()[-1]
    return plain


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(thoughts, answers, fields, st.integers(1, 5), st.none() | st.integers(0, 40))
async def test_every_stream_follows_the_grammar_and_accumulates_to_the_complete_response(
    thinking: list[str],
    answer: str,
    fields: dict[str, Any],
    tokens_per_delta: int,
    die_after: int | None,
) -> None:
    over = engine(Script(thinking, answer), tokens_per_delta, die_after=die_after)
    async with client(over) as http:
        response = await http.post(RESPONSES, json=body(**fields, stream=True))
    if response.status_code != 200:  # the budget does not fit max_output_tokens
        assert response.json()["error"]["type"] == "invalid_request_error"
        return
    streamed = Parser(response.text).last
    accumulated, _ = await accumulate(response.text)
    assert accumulated == streamed
    if streamed["status"] == "failed":
        assert die_after is not None
        return

    async with client(engine(Script(thinking, answer), tokens_per_delta)) as http:
        whole = (await http.post(RESPONSES, json=body(**fields))).json()
    created = whole["created_at"]
    assert without_ids({**streamed, "created_at": created}) == without_ids(whole)
    if whole["status"] == "completed":
        assert any(item["type"] != "reasoning" for item in whole["output"])


async def accumulate(stream: str) -> tuple[dict[str, Any], list[Any]]:
    """Return the last response that the SDK's accumulator has of a stream, and the events."""

    async def replay(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=stream, headers={"content-type": "text/event-stream"})

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(replay)) as http,
        sdk_of(http).responses.stream(model="fake", input="hi") as events,
    ):
        received = [event async for event in events]
    last = getattr(received[-1], "response").to_dict(mode="json")  # noqa: B009
    for item in last["output"]:
        item.pop("parsed_arguments", None)
        for part in item.get("content", ()):
            part.pop("parsed", None)
    return last, received


async def test_a_stream_event_by_event() -> None:
    response = await post(engine(Script(("Hm.",), "Yes."), tokens_per_delta=8), stream=True)

    assert response.headers["content-type"].startswith("text/event-stream")
    assert "[DONE]" not in response.text
    events = parse_events(response.text)
    assert [event.data["sequence_number"] for event in events] == [*range(len(events))]
    assert [event.name.removeprefix("response.") for event in events if event.name] == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "reasoning_text.delta"),
        *("reasoning_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        "completed",
    ]


async def test_a_summary_has_the_text_of_the_thinking_in_place_of_the_content() -> None:
    response = await post(FakeEngine(Script(("Hm.",))), reasoning={"summary": "auto"}, stream=True)

    reasoning = Parser(response.text).items[0]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "Hm."}]
    assert reasoning["content"] == []
    assert "reasoning_text" not in response.text


@pytest.mark.parametrize("field", [{"reasoning": HIDDEN}, {"include_reasoning": False}])
async def test_hidden_thinking_has_progress_and_a_sealed_record(field: dict[str, Any]) -> None:
    script = Script(("A secret thought of 39 tokens, no less...",), "Yes.")
    response = await post(FakeEngine(script), **field, max_thinking_tokens=64, stream=True)

    reasoning, answer = Parser(response.text).items
    (summary,) = reasoning["summary"]
    assert summary["text"].endswith("Thought for 41 of 64 tokens.")
    assert is_progress(summary["text"])
    assert reasoning["content"] == []
    assert len(reasoning["encrypted_content"]) > 200
    assert "secret" not in response.text
    assert answer["content"][0]["text"] == "Yes."


async def test_the_operator_can_hide_the_thinking_by_default() -> None:
    script = Script(("A secret.",), "Yes.")
    async with client(FakeEngine(script), reasoning_format="hidden") as http:
        hidden = await http.post(RESPONSES, json=body())
        shown = await http.post(RESPONSES, json=body(include_reasoning=True))

    assert "secret" not in hidden.text
    assert "secret" in shown.text


async def test_an_error_in_a_stream_is_a_failed_response() -> None:
    response = await post(FakeEngine(die_after=4), stream=True)

    last = Parser(response.text).last
    assert last["error"]["code"] == "server_error"
    assert "engine" in last["error"]["message"]
    assert last["usage"] is None


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Overloaded("Full.", headers={"retry-after": "7"}), "rate_limit_exceeded", "again in 7s."),
        (QuotaExceeded("No money."), "insufficient_quota", "No money."),
        (ContextTooLong(8, "so less", param="input"), "context_length_exceeded", "so less"),
        (BadRequest("Wrong."), "invalid_prompt", "Wrong."),
        (DeadlineExceeded("Late."), "server_error", "Late."),
    ],
)
def test_failures_have_codes_that_clients_know(error: ApiError, code: str, said: str) -> None:
    failure = to_response_error(error)

    assert failure["code"] == code
    assert failure["message"].endswith(said)


async def test_a_call_that_is_cut_off_has_no_end_so_that_no_client_runs_it() -> None:
    text = '<tool_call>\n{"name": "patch", "arguments": {"input": "rm -rf /tmp/x'
    script = Script((), text)
    response = await post(engine(script), tools=TOOLS, max_output_tokens=len(text), stream=True)

    parser = Parser(response.text)
    assert parser.last["status"] == "incomplete"
    assert parser.last["incomplete_details"] == {"reason": "max_output_tokens"}
    assert all(item["type"] != "custom_tool_call" for item in parser.items)
    assert parser.last["output"][-1]["status"] == "incomplete"


async def test_custom_tools_stream_their_input_as_text() -> None:
    patch = 'a\n"b" ☃'
    response = await post(
        engine(Script((), call("patch", {"input": patch}))), tools=TOOLS, stream=True
    )

    events = parse_events(response.text)
    deltas = [each.data["delta"] for each in events if each.name and "input.delta" in each.name]
    assert len(deltas) > 3
    assert "".join(deltas) == patch
    (item,) = Parser(response.text).items
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "patch", patch)


async def test_calls_in_namespaces_have_the_names_of_the_request() -> None:
    response = await post(engine(Script((), call("agents__spawn", {"a": 1}))), tools=TOOLS)

    (item,) = response.json()["output"]
    assert (item["namespace"], item["name"]) == ("agents", "spawn")
    assert json.loads(item["arguments"]) == {"a": 1}


async def test_heartbeats_are_events() -> None:
    gate = Gate(3)
    limits = {"heartbeat_seconds": 0.01}
    async with (
        running_server(FakeEngine(before_token=gate), limits=limits) as url,
        httpx.AsyncClient(base_url=url) as http,
        http.stream("POST", RESPONSES, json=body(stream=True)) as response,
    ):
        received = ""
        async for chunk in response.aiter_text():
            received += chunk
            if received.count("event: response.in_progress") > 3:
                gate.opened.set()

    parser = Parser(received)
    assert parser.last["status"] == "completed"
    assert len(parser.items) == 2
