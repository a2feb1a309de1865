"""Edges of a budget: landing, loops, and characters at the maximum."""

from random import Random
from string import ascii_letters
from typing import Any

import pytest

from proctor.budget.budgets import NUDGE_TEXT
from proctor.server.engines.fake import FakeEngine, Script
from tests.server.harness import CHAT, body, client

SENTENCES = "One. Two is here. Three is too. Four goes on and on until the budget ends."
ROUND = "round and "


async def ask(script: Script, **fields: Any) -> tuple[dict[str, Any], str]:
    """Return the only choice, and the metrics afterwards."""
    async with client(FakeEngine(script)) as http:
        response = await http.post(CHAT, json=body(**fields))
        assert response.status_code == 200, response.text
        return response.json()["choices"][0], (await http.get("/metrics")).text


@pytest.mark.parametrize(
    ("landing", "thought"),
    [
        ("sentence", "One. Two is here. Three is too."),
        ("hard", "One. Two is here. Three is too. F"),
    ],
)
async def test_a_thinking_at_its_maximum_lands(landing: str, thought: str) -> None:
    choice, _ = await ask(
        Script((SENTENCES,), "42"), max_thinking_tokens=33, thinking={"landing": landing}
    )
    assert choice["message"]["reasoning_content"] == thought
    assert choice["message"]["content"] == "42"
    assert choice["thinking"]["tokens"] == len(thought)
    assert choice["thinking"]["end_reason"] == "max"


async def test_a_landing_leaves_room_for_the_wrap_up() -> None:
    choice, _ = await ask(
        Script((SENTENCES,), "42"), max_thinking_tokens=38, thinking={"wrap_up_text": " So:"}
    )
    assert choice["message"]["reasoning_content"] == "One. Two is here. Three is too. So:"


@pytest.mark.parametrize("cap", range(1, 10))
async def test_no_character_is_cut_by_the_maximum(cap: int) -> None:
    choice, _ = await ask(Script(("🤔" * 4,), "42"), max_thinking_tokens=cap)
    assert choice["message"].get("reasoning_content", "").rstrip() == "🤔" * (cap // 4)
    assert choice["thinking"]["tokens"] == cap


async def test_a_loop_is_closed_and_the_answer_follows() -> None:
    choice, metrics = await ask(Script((ROUND * 100,), "42"), min_thinking_tokens=500)
    assert choice["thinking"]["end_reason"] == "loop"
    assert choice["thinking"]["tokens"] < 200
    assert choice["message"]["content"] == "42"
    assert 'proctor_loops_total{action="close"} 1.0' in metrics


async def test_a_loop_is_nudged_once() -> None:
    choice, metrics = await ask(Script((ROUND * 100,), "42"), thinking={"on_loop": "nudge"})
    assert choice["message"]["reasoning_content"].count(NUDGE_TEXT) == 1
    assert choice["thinking"]["end_reason"] == "loop"
    assert 'proctor_loops_total{action="nudge"} 1.0' in metrics
    assert 'proctor_loops_total{action="close"} 1.0' in metrics


async def test_after_a_nudge_the_minimum_holds() -> None:
    anything_else = "".join(Random(7).choices(ascii_letters, k=400))
    choice, _ = await ask(
        Script((ROUND * 9, "no.", anything_else), "42"),
        min_thinking_tokens=300,
        max_thinking_tokens=700,
        thinking={"on_loop": "nudge"},
    )
    thinking = choice["thinking"]
    assert choice["message"]["reasoning_content"].count(NUDGE_TEXT) == 1
    assert thinking["tokens"] >= 300
    assert thinking["continuations"] == 2
    assert (thinking["end_reason"], thinking["loops"]) == ("natural", 1)


async def test_a_loop_is_the_reason_if_a_later_block_misses_the_minimum() -> None:
    answer = tuple(FakeEngine().codec.encode("I see.<think>but wait</think>42"))
    choice, _ = await ask(Script((ROUND * 100,), answer), min_thinking_tokens=300)
    thinking = choice["thinking"]
    assert choice["message"]["reasoning_content"].endswith("but wait")
    assert choice["message"]["content"] == "I see.42"
    assert thinking["tokens"] < 300
    assert (thinking["end_reason"], thinking["loops"]) == ("loop", 1)


async def test_a_reduced_minimum_is_reported_as_clamped() -> None:
    settings = {"budget": {"min_tokens": 300}, "default_tier": "custom"}
    async with client(FakeEngine(Script((SENTENCES,), "42")), **settings) as http:
        response = await http.post(CHAT, json=body(max_tokens=100))
    thinking = response.json()["choices"][0]["thinking"]
    assert thinking["min_tokens"] == thinking["tokens"] == 74
    assert thinking["clamped"] is True


async def test_loop_detection_can_be_turned_off() -> None:
    choice, _ = await ask(Script((ROUND * 50,), "42"), thinking={"on_loop": "off"})
    assert choice["message"]["reasoning_content"] == ROUND * 50
    assert choice["thinking"]["end_reason"] == "natural"
