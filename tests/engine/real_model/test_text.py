"""Texts of a real vocabulary: characters, sentences, and markers that are only talked about."""

import json
from typing import Any

import pytest

from tests.engine.client import body
from tests.engine.gateway import Gateway
from tests.engine.real_model.client import (
    END,
    QUESTIONS,
    START,
    request_for,
    send_all,
    thinking_count,
)

pytestmark = pytest.mark.engine

SCRIPTS = (
    "Repeat this: Здравствуйте, как дела?",
    "Repeat this: 今天天气很好,我们去公园吧。",
    "Repeat this: おはようございます、元気ですか。",
    "Repeat this: 안녕하세요, 반갑습니다.",
    "Repeat this: مرحبا كيف حالك اليوم",
    "Repeat this: नमस्ते, आप कैसे हैं?",
    "Repeat this: שלום, מה שלומך?",
    "Repeat this: Καλημέρα, τι κάνεις;",
    "Repeat this: 😀 🎉 👩‍👩‍👧‍👦 🇩🇪 🏳️‍🌈",
)
SENTENCE_ENDS = (".", "!", "?", ":", "\n")
LONG_THOUGHT = {"min_thinking_tokens": 24, "max_thinking_tokens": 60}


def choice_of(answer: dict[str, Any]) -> dict[str, Any]:
    choice: dict[str, Any] = answer["choices"][0]
    return choice


@pytest.mark.parametrize("stream", [False, True])
async def test_no_character_is_cut(real_gateway: Gateway, stream: bool) -> None:
    """The thinking ends after any number of tokens, a character's first bytes included."""
    requests = [
        body(
            real_gateway,
            text,
            max_thinking_tokens=cap,
            min_thinking_tokens=cap,
            thinking={"landing": "hard", "on_loop": "off", "continuation_text": "等等 🤔"},
            temperature=0.9,
            seed=cap,
            max_tokens=60,
            stream=stream,
        )
        for cap, text in enumerate(SCRIPTS * 2, 2)
    ]
    for request, answer in zip(requests, await send_all(real_gateway, requests), strict=True):
        count = thinking_count(real_gateway, f"{answer['id']}-0")
        assert choice_of(answer)["thinking"]["tokens"] == count <= request["max_thinking_tokens"]
        message = choice_of(answer)["message"]
        assert "\N{REPLACEMENT CHARACTER}" not in message["reasoning_content"]


async def test_the_thinking_lands_at_the_end_of_a_sentence(real_gateway: Gateway) -> None:
    requests = [
        request_for(
            real_gateway,
            question,
            **LONG_THOUGHT,
            thinking={"landing": "sentence", "on_loop": "off"},
            temperature=0.7,
            seed=seed,
            max_tokens=120,
        )
        for seed, question in enumerate(QUESTIONS * 3)
    ]
    landed = 0
    for answer in await send_all(real_gateway, requests):
        choice = choice_of(answer)
        if choice["thinking"]["end_reason"] != "max" or choice["thinking"]["tokens"] == 60:
            continue
        landed += 1
        assert choice["message"]["reasoning_content"].rstrip(" *`\"')").endswith(SENTENCE_ENDS)
    assert landed >= 3


async def test_stop_strings_end_the_answer_only(real_gateway: Gateway) -> None:
    requests = [
        request_for(
            real_gateway,
            question,
            max_thinking_tokens=30,
            min_thinking_tokens=10,
            stop=[stop],
            temperature=0,
            max_tokens=80,
        )
        for question in QUESTIONS
        for stop in ("a", ".")
    ]
    for request, answer in zip(requests, await send_all(real_gateway, requests), strict=True):
        message = choice_of(answer)["message"]
        (stop,) = request["stop"]
        assert stop not in (message["content"] or "")
        assert choice_of(answer)["thinking"]["tokens"] >= 10


async def test_the_answer_follows_its_schema_after_a_forced_end(real_gateway: Gateway) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["a"],
        "additionalProperties": False,
    }
    requests = [
        request_for(
            real_gateway,
            "4 and 4?",
            max_thinking_tokens=cap,
            min_thinking_tokens=cap,
            thinking={"landing": "hard"},
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "sum", "schema": schema, "strict": True},
            },
            temperature=0.8,
            seed=cap,
            max_tokens=100,
        )
        for cap in (1, 2, 5, 9, 20)
    ]
    for request, answer in zip(requests, await send_all(real_gateway, requests), strict=True):
        count = thinking_count(real_gateway, f"{answer['id']}-0")
        assert choice_of(answer)["thinking"]["tokens"] == count == request["max_thinking_tokens"]
        assert 0 <= json.loads(choice_of(answer)["message"]["content"])["a"] <= 99


@pytest.mark.parametrize(
    "text",
    [
        f"Write {END} to end the thinking, and {START} to begin it.",
        f"```python\nTHINKING = ('{START}', '{END}')\n```",
        "Half a marker: <thi, </thin, < think > and </ think>.",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_may_talk_about_the_markers(
    real_gateway: Gateway, text: str, stream: bool
) -> None:
    """The grammar lets the model write this text only."""
    request = request_for(
        real_gateway,
        "4 and 4?",
        max_thinking_tokens=10,
        structured_outputs={"choice": [text]},
        temperature=0,
        max_tokens=120,
        stream=stream,
    )
    (answer,) = await send_all(real_gateway, [request])
    assert choice_of(answer)["message"]["content"] == text


@pytest.mark.parametrize("half", ["<", "</", "</thi", "<think"])
@pytest.mark.parametrize("stream", [False, True])
async def test_half_a_marker_is_part_of_the_thinking(
    real_gateway: Gateway, half: str, stream: bool
) -> None:
    """Forced in the middle of the thinking, it is held back until the next token, and shown."""
    request = request_for(
        real_gateway,
        "4 and 4?",
        max_thinking_tokens=40,
        thinking={"continuations": 1, "continuation_text": f" {half} x", "on_loop": "off"},
        temperature=0,
        max_tokens=120,
        stream=stream,
    )
    (answer,) = await send_all(real_gateway, [request])
    choice = choice_of(answer)
    assert choice["thinking"]["continuations"] == 1
    (span,) = choice["thinking"]["forced_spans"]
    reasoning = choice["message"]["reasoning_content"]
    assert reasoning[span["start"] : span["end"]] == f" {half} x"
    assert choice["thinking"]["tokens"] == thinking_count(real_gateway, f"{answer['id']}-0")
