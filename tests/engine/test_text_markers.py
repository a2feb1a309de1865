"""Markers that are ordinary text, on the real engine: the demo model ends its thinking at `\nso `.

Its tokens are letters there, so that the marker takes four of them and half of it comes often.
"""

from collections.abc import Iterator
from random import Random
from typing import Any

import httpx
import pytest

from proctor.budget import EndReason
from tests.engine.asking import ask, body
from tests.engine.prompts import chain
from tests.engine.served import Served, serving
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

END = "\nso "


@pytest.fixture(scope="module")
def text() -> Iterator[Served]:
    with serving(thinking_start="<think>", thinking_end=END) as running:
        yield running


async def asked(text: Served, **fields: Any) -> tuple[str, str, dict[str, Any]]:
    request = body(text, chain(Random(3), 4), temperature=0, max_tokens=400, **fields)
    async with httpx.AsyncClient(base_url=text.url, timeout=PATIENCE) as http:
        answer = await ask(http, request)
    (choice,) = answer["choices"]
    name = f"{answer['id']}-0"
    recording = text.engine.recordings[name]
    outcome = text.engine.outcome(name)
    assert choice["thinking"]["tokens"] == outcome.tokens
    assert answer["usage"]["completion_tokens"] == len(recording.tokens)
    message = choice["message"]
    return message["reasoning_content"] or "", message["content"] or "", choice["thinking"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_marker_ends_the_thinking_and_is_in_neither_text(
    text: Served, stream: bool
) -> None:
    reasoning, content, thinking = await asked(text, stream=stream, max_thinking_tokens=300)
    assert thinking["end_reason"] == EndReason.NATURAL
    assert reasoning.startswith("a:")
    assert END not in reasoning + content
    assert content[:2].isdigit()
    assert "</think>" not in content
    assert thinking["tokens"] == len(text.engine.codec.encode(reasoning))


@pytest.mark.parametrize("stream", [False, True])
async def test_half_a_marker_that_is_turned_down_is_not_shown(text: Served, stream: bool) -> None:
    reasoning, _, thinking = await asked(
        text, stream=stream, max_thinking_tokens=300, thinking={"continuations": 2}
    )
    assert thinking["continuations"] == 2
    for span in thinking["forced_spans"]:
        assert reasoning[span["start"] : span["end"]] == "Wait"
        assert not reasoning[: span["start"]].endswith(("\n", "\ns", "\nso"))


async def test_a_cap_closes_with_the_whole_marker(text: Served) -> None:
    reasoning, content, thinking = await asked(
        text, max_thinking_tokens=6, thinking={"landing": "hard"}
    )
    assert (thinking["tokens"], thinking["end_reason"]) == (6, EndReason.MAX)
    assert 1 <= thinking["forced_tokens"] <= len(text.engine.model.markers.end)
    assert END not in reasoning + content


async def test_no_thinking_is_no_marker_in_the_content(text: Served) -> None:
    _, content, thinking = await asked(text, max_thinking_tokens=0)
    assert thinking["tokens"] == 0
    assert END not in content


@pytest.mark.parametrize("tool_choice", ["auto", "required"])
async def test_no_marker_reaches_the_content_when_tools_are_given(
    text: Served, tool_choice: str
) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    _, content, _ = await asked(
        text, max_thinking_tokens=200, tools=[tool], tool_choice=tool_choice
    )
    assert "think>" not in content
    assert END not in content
