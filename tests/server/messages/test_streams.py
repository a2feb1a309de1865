"""Streams of the Messages API, against the grammar of the protocol and the SDK's accumulator."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import orjson
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.renderers.messages import _to_input
from tests.server.harness import Event, asgi_client, client, parse_events, running_app

tools_module = pytest.importorskip(
    "proctor.server.engines.vllm.tools",
    reason="the CPU engine, whose tool parsers the tests use, is missing",
)

MESSAGES = "/v1/messages"
DELTAS = {"thinking": "thinking_delta", "text": "text_delta", "tool_use": "input_json_delta"}
TOOL = {"name": "add", "input_schema": {"type": "object"}}

texts = st.text(st.characters(codec="utf-8", exclude_characters="<>"), max_size=12)


def call(value: dict[str, Any]) -> str:
    """Return a tool call as the model writes it."""
    return f"<tool_call>\n{json.dumps({'name': 'add', 'arguments': value})}\n</tool_call>"


calls = st.builds(
    call,
    st.dictionaries(st.sampled_from("abc"), texts | st.integers(), max_size=2),
)
answers = st.lists(texts | calls, max_size=4).map("".join)
REQUESTS_OF_A_CASE = 3
scripts = st.builds(Script, st.lists(texts, min_size=1, max_size=2), answers)
fields = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, 200)},
    optional={
        "thinking": st.sampled_from(
            [
                {"type": "adaptive"},
                {"type": "adaptive", "display": "omitted"},
                {"type": "disabled"},
                {"type": "enabled", "budget_tokens": 4},
                {"type": "auto", "continuations": 1},
            ]
        ),
        "stop_sequences": st.lists(st.text(min_size=1, max_size=2), max_size=2),
        "tools": st.just([TOOL]),
    },
)


def body(**fields: Any) -> dict[str, Any]:
    """Return the body of a request, with `fields` over the defaults."""
    messages = [{"role": "user", "content": "hi"}]
    return {"model": "fake", "max_tokens": 1000, "messages": messages, **fields}


def engine(script: Script | Callable[[Job], Script], tokens_per_delta: int = 1) -> FakeEngine:
    hermes = tools_module.VllmTools("hermes", type("Tokenizer", (), {"get_vocab": lambda _: {}})())
    return FakeEngine(script, tools=hermes, tokens_per_delta=tokens_per_delta, cached_tokens=3)


def sdk_client(app: FastAPI) -> anthropic.AsyncAnthropic:
    """Return Anthropic's SDK as a client that calls a running application over ASGI."""
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app))
    return anthropic.AsyncAnthropic(base_url="http://test", api_key="none", http_client=http)


def check_block(events: Iterator[Event], start: dict[str, Any]) -> None:
    """Check the events of a block up to its end.

    block: content_block_start, (ping | delta)*, content_block_stop; a thinking block's last delta
    is its signature, and no other.
    """
    kind, deltas = start["content_block"]["type"], []
    for event in events:
        if event.name == "ping":
            continue
        assert event.data["index"] == start["index"]
        if event.name == "content_block_stop":
            break
        assert event.name == "content_block_delta"
        deltas.append(event.data["delta"]["type"])
    else:
        raise AssertionError("the block does not end")
    if kind == "thinking":
        assert deltas.pop() == "signature_delta"
    assert {*deltas} <= {DELTAS[kind]}


def check_stream(text: str) -> list[str]:
    """Check a stream, and return the types of its blocks.

    stream: message_start, (ping | block)*, message_delta, message_stop; blocks are numbered.
    """
    events = iter(parse_events(text))
    kinds: list[str] = []
    assert next(events).name == "message_start"
    for event in events:
        assert event.name == event.data["type"]
        if event.name == "content_block_start":
            assert event.data["index"] == len(kinds)
            kinds.append(event.data["content_block"]["type"])
            check_block(events, event.data)
        elif event.name != "ping":
            assert event.name == "message_delta"
            break
    assert next(events).name == "message_stop"
    assert next(events, None) is None
    return kinds


def without_ids(message: anthropic.types.Message) -> dict[str, Any]:
    """Return what is the same in each response, in the fields that the SDK accumulates."""
    plain: dict[str, Any] = message.model_dump(exclude={"id", "thinking", "cost"})
    for block in plain["content"]:
        block.pop("signature", None)
        block.pop("id", None)
    return plain


@pytest.mark.slow
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.lists(st.tuples(scripts, fields), min_size=1, max_size=6), st.integers(1, 5))
async def test_every_stream_follows_the_grammar_and_accumulates_to_the_complete_response(
    cases: list[tuple[Script, dict[str, Any]]], tokens_per_delta: int
) -> None:
    scripts_left = [script for script, _ in cases for _ in range(REQUESTS_OF_A_CASE)]
    over = engine(lambda _: scripts_left.pop(0), tokens_per_delta)
    async with running_app(over) as app, asgi_client(app) as http, sdk_client(app) as sdk:
        for _, fields in cases:
            response = await http.post(MESSAGES, json=body(**fields, stream=True))
            kinds = check_stream(response.text)
            whole = await sdk.messages.create(**body(), extra_body=fields)
            async with sdk.messages.stream(**body(), extra_body=fields) as stream:
                accumulated = await stream.get_final_message()

            assert [block.type for block in whole.content] == kinds
            assert any(kind != "thinking" for kind in kinds)
            assert without_ids(accumulated) == without_ids(whole)


def test_arguments_that_are_cut_keep_integers_of_any_size() -> None:
    kept = {"a": "7", "b": -13106511852580896128}
    assert json.loads(orjson.dumps(_to_input(json.dumps(kept)[:-1]))) == kept


async def test_a_stream_event_by_event() -> None:
    async with client(engine(Script(("Hm.",), "Yes."), tokens_per_delta=8)) as http:
        response = await http.post(
            MESSAGES, json=body(thinking={"type": "enabled", "budget_tokens": 100}, stream=True)
        )

    assert response.headers["content-type"].startswith("text/event-stream")
    events = parse_events(response.text)
    deltas = [event.data.get("delta") for event in events if event.name == "content_block_delta"]
    assert [event.name for event in events] == [
        *("message_start", "ping", "content_block_start", "content_block_delta"),
        *("content_block_delta", "content_block_stop"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop"),
    ]
    assert deltas[0] == {"type": "thinking_delta", "thinking": "Hm."}
    assert deltas[1]["type"] == "signature_delta"
    assert deltas[2] == {"type": "text_delta", "text": "Yes."}
    last = events[-2].data
    assert last["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert last["usage"]["output_tokens_details"] == {"thinking_tokens": 3}
    assert last["thinking"]["max_tokens"] == 100


async def test_omitted_thinking_has_a_signature_and_no_text() -> None:
    script = Script(("Secret.",), "Yes.")
    thinking = {"type": "enabled", "budget_tokens": 100, "display": "omitted"}
    async with client(engine(script)) as http:
        whole = await http.post(MESSAGES, json=body(thinking=thinking))
        stream = await http.post(MESSAGES, json=body(thinking=thinking, stream=True))

    (hidden, answer) = whole.json()["content"]
    assert (hidden["thinking"], answer["text"]) == ("", "Yes.")
    assert hidden["signature"]
    assert "Secret" not in stream.text
    assert check_stream(stream.text) == ["thinking", "text"]


async def test_an_answer_that_is_cut_off_within_a_call() -> None:
    call = '<tool_call>\n{"name": "add", "arguments": {"a": "long'
    async with client(engine(Script((), call))) as http:
        response = await http.post(MESSAGES, json=body(tools=[TOOL], max_tokens=len(call)))

    message = response.json()
    assert message["stop_reason"] == "max_tokens"
    assert message["content"][-1]["input"] in ({}, {"a": "long"}, {"a": ""})


async def test_an_error_in_a_stream_is_its_last_event() -> None:
    async with client(FakeEngine(die_after=1)) as http:
        response = await http.post(MESSAGES, json=body(stream=True))

    *_, last = parse_events(response.text)
    assert last.name == last.data["type"] == "error"
    assert last.data["error"]["type"] == "overloaded_error"
