import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from proctor.budget import EngineRecord
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.transport.sse import ErrorEvent, event, without_names
from tests.server.harness import (
    CHAT,
    Event,
    Gate,
    body,
    client,
    merge_deltas,
    parse_events,
    running_server,
    with_timeout,
)


async def stream(engine: FakeEngine, **fields: Any) -> list[Event]:
    async with client(engine) as http:
        response = await http.post(CHAT, json=body(stream=True, **fields))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return parse_events(response.text)


async def test_the_chunks_of_a_stream() -> None:
    engine = FakeEngine(Script(("é",), "\n\n☃"), tokens_per_delta=2)

    role, thought, answer, finish, usage, done = await stream(
        engine, stream_options={"include_usage": True}
    )

    assert role.name is None
    assert role.choice["delta"] == {"role": "assistant", "content": "", "reasoning_content": None}
    assert thought.name == "reasoning"
    assert thought.choice == {
        "index": 0,
        "delta": {"reasoning_content": "é"},
        "finish_reason": None,
    }
    assert answer.name == "answer"
    assert answer.choice["delta"] == {"content": "☃", "reasoning_content": None}
    assert finish.name is None
    assert finish.choice["delta"] == {"content": "", "reasoning_content": None}
    assert finish.choice["finish_reason"] == "stop"
    assert finish.choice["thinking"]["tokens"] == 2
    assert usage.data["choices"] == []
    assert usage.data["usage"]["completion_tokens"] == 9
    assert usage.data["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
    assert usage.data["cost"] is None
    assert done.data == "[DONE]"
    chunks = [role, thought, answer, finish, usage]
    assert {chunk.data["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.data["id"] for chunk in chunks}) == 1


async def test_usage_is_sent_only_if_requested() -> None:
    assert not any("usage" in event.data for event in await stream(FakeEngine()))


@pytest.mark.parametrize("style", ["reasoning_content", "reasoning", "both", "tags", "hidden"])
async def test_a_stream_adds_up_to_the_whole_response(style: str) -> None:
    request = body(reasoning_format=style)

    async with client(FakeEngine(Script(("héllo ☃",), "wörld"))) as http:
        streamed = await http.post(CHAT, json={**request, "stream": True})
        whole = await http.post(CHAT, json=request)

    message = merge_deltas(event.choice["delta"] for event in parse_events(streamed.text)[:-1])
    assert message == whole.json()["choices"][0]["message"]


async def test_choices_are_streamed_concurrently() -> None:
    gate = Gate(2)
    engine = FakeEngine(lambda job: Script(("ab",), job.id[-1]), before_token=gate)

    asking = asyncio.ensure_future(stream(engine, n=3))
    await with_timeout(gate.reached.wait())
    gate.opened.set()
    got = await with_timeout(asking)

    choices = [event.choice for event in got[:-1]]
    assert [choice["index"] for choice in choices[:3]] == [0, 1, 2]
    texts = {
        choice["index"]: choice["delta"]["content"]
        for choice in choices[3:]
        if choice["delta"].get("content")
    }
    assert texts == {0: "0", 1: "1", 2: "2"}
    assert sum(choice["finish_reason"] == "stop" for choice in choices) == 3


async def test_an_engine_that_dies_ends_the_stream_with_an_error_event() -> None:
    got = await stream(FakeEngine(die_after=3))

    assert [event.name for event in got] == [None, "reasoning", "error"]
    assert got[-1].data["error"]["type"] == "server_error"


async def test_an_internal_error_ends_the_stream_without_details() -> None:
    engine = FakeEngine()

    async def fail(_: Any) -> EngineRecord:
        raise RuntimeError("a secret")

    engine.record = fail  # type: ignore[assignment, method-assign]
    got = await stream(engine)

    assert got[-1].name == "error"
    assert "secret" not in got[-1].data["error"]["message"]


async def test_text_is_streamed_without_delay() -> None:
    gate = Gate(2)
    engine = FakeEngine(Script(("abc",), "x"), before_token=gate)

    async with (
        running_server(engine) as url,
        httpx.AsyncClient(base_url=url) as http,
        http.stream("POST", CHAT, json=body(stream=True)) as response,
    ):
        lines = response.aiter_lines()
        while 'b"' not in await with_timeout(anext(lines)):
            pass
        assert not gate.opened.is_set()
        gate.opened.set()
        rest = [line async for line in lines]

    assert rest[-2] == "data: [DONE]"


async def test_heartbeats_keep_a_silent_stream_alive() -> None:
    gate = Gate(0)
    limits = {"heartbeat_seconds": 0.01}

    async with (
        running_server(FakeEngine(before_token=gate), limits=limits) as url,
        httpx.AsyncClient(base_url=url) as http,
        http.stream("POST", CHAT, json=body(stream=True)) as response,
    ):
        lines = response.aiter_lines()
        while not (await with_timeout(anext(lines))).startswith(":"):
            pass
        gate.opened.set()
        rest = [line async for line in lines]

    assert rest[-2] == "data: [DONE]"


async def test_an_error_event_without_a_name_is_still_an_error_event() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield event({"a": 1}, name="reasoning")
        yield ErrorEvent(event({"error": {}}, name="error"))

    unnamed = [each async for each in without_names(broken())]
    assert unnamed == [b'data: {"a":1}\n\n', b'data: {"error":{}}\n\n']
    assert isinstance(unnamed[1], ErrorEvent)
