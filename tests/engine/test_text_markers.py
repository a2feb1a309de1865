"""Markers of ordinary text, on the real engine: the demo model ends its thinking at `\nso `.

The marker consists of four tokens, a character each, and parts of it are frequent in the text.
"""

from collections.abc import Iterator
from random import Random
from typing import Any

import httpx
import pytest

from proctor.budget import EndReason
from tests.engine.client import ask, body
from tests.engine.gateway import Gateway, running_gateway
from tests.engine.prompts import chain
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

END = "\nso "


@pytest.fixture(scope="module")
def text_markers() -> Iterator[Gateway]:
    with running_gateway(thinking_start="<think>", thinking_end=END) as gateway:
        yield gateway


async def send(gateway: Gateway, **fields: Any) -> tuple[str, str, dict[str, Any]]:
    request = body(gateway, chain(Random(3), 4), temperature=0, max_tokens=400, **fields)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE) as http:
        answer = await ask(http, request)
    (choice,) = answer["choices"]
    name = f"{answer['id']}-0"
    recording = gateway.engine.recordings[name]
    outcome = gateway.engine.outcome(name)
    assert choice["thinking"]["tokens"] == outcome.tokens
    assert answer["usage"]["completion_tokens"] == len(recording.tokens)
    message = choice["message"]
    return message["reasoning_content"] or "", message["content"] or "", choice["thinking"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_marker_ends_the_thinking_and_is_in_no_text(
    text_markers: Gateway, stream: bool
) -> None:
    reasoning, content, thinking = await send(text_markers, stream=stream, max_thinking_tokens=300)
    assert thinking["end_reason"] == EndReason.NATURAL
    assert reasoning.startswith("a:")
    assert END not in reasoning + content
    assert content[:2].isdigit()
    assert "</think>" not in content
    assert thinking["tokens"] == len(text_markers.engine.codec.encode(reasoning))


@pytest.mark.parametrize("stream", [False, True])
async def test_part_of_a_rejected_marker_is_not_shown(text_markers: Gateway, stream: bool) -> None:
    reasoning, _, thinking = await send(
        text_markers, stream=stream, max_thinking_tokens=300, thinking={"continuations": 2}
    )
    assert thinking["continuations"] == 2
    for span in thinking["forced_spans"]:
        assert reasoning[span["start"] : span["end"]] == "Wait"
        assert not reasoning[: span["start"]].endswith(("\n", "\ns", "\nso"))


async def test_the_maximum_forces_the_whole_marker(text_markers: Gateway) -> None:
    reasoning, content, thinking = await send(
        text_markers, max_thinking_tokens=6, thinking={"landing": "hard"}
    )
    assert (thinking["tokens"], thinking["end_reason"]) == (6, EndReason.MAX)
    assert 1 <= thinking["forced_tokens"] <= len(text_markers.engine.model.markers.end)
    assert END not in reasoning + content


async def test_without_thinking_the_content_has_no_marker(text_markers: Gateway) -> None:
    _, content, thinking = await send(text_markers, max_thinking_tokens=0)
    assert thinking["tokens"] == 0
    assert END not in content


@pytest.mark.parametrize("tool_choice", ["auto", "required"])
async def test_with_tools_the_content_has_no_marker(
    text_markers: Gateway, tool_choice: str
) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    _, content, _ = await send(
        text_markers, max_thinking_tokens=200, tools=[tool], tool_choice=tool_choice
    )
    assert "think>" not in content
    assert END not in content
