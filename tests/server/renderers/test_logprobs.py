"""Log probabilities of chats."""

from typing import Any

import pytest

from proctor.server.engines.fake import FakeEngine, Script
from tests.server.harness import CHAT, body, client, merge_deltas, parse_events

SCRIPT = Script(("Hm é.",), "\n\nIt is ☃.")


async def ask(**fields: Any) -> tuple[dict[str, Any], str]:
    """Return the first choice with its log probabilities, streamed or not, and the raw response."""
    async with client(FakeEngine(SCRIPT)) as http:
        response = await http.post(CHAT, json=body(**fields))
    if not fields.get("stream"):
        return response.json()["choices"][0], response.text
    logprobs: dict[str, list[Any]] = {}
    choices = [event.choice for event in parse_events(response.text)[:-1]]
    for choice in choices:
        for key, scores in (choice.get("logprobs") or {}).items():
            logprobs.setdefault(key, []).extend(scores)
    texts = merge_deltas(choice["delta"] for choice in choices)
    return {"message": texts, "logprobs": logprobs or None}, response.text


def text_of(scores: list[Any]) -> str:
    return bytes(byte for score in scores for byte in score["bytes"]).decode()


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_cover_the_answer_only(stream: bool) -> None:
    choice, _ = await ask(logprobs=True, top_logprobs=2, stream=stream)

    assert set(choice["logprobs"]) == {"content"}
    scores = choice["logprobs"]["content"]
    assert text_of(scores) == choice["message"]["content"] == "It is ☃."
    first = scores[0]
    assert first == {
        "token": "I",
        "logprob": 0.0,
        "bytes": [ord("I")],
        "top_logprobs": [
            {"token": "I", "logprob": 0.0, "bytes": [ord("I")]},
            {"token": "J", "logprob": -1.0, "bytes": [ord("J")]},
        ],
    }


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("style", ["reasoning_content", "tags"])
async def test_logprobs_cover_the_thinking_on_request(stream: bool, style: str) -> None:
    choice, _ = await ask(
        logprobs=True, thinking={"logprobs": True}, stream=stream, reasoning_format=style
    )

    assert text_of(choice["logprobs"]["reasoning_content"]) == "Hm é."
    assert text_of(choice["logprobs"]["content"]) == "It is ☃."
    assert all(score["top_logprobs"] == [] for score in choice["logprobs"]["content"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "hidden",
    [
        {"reasoning_format": "hidden"},
        {"reasoning": {"exclude": True}},
        {"include_reasoning": False},
    ],
)
async def test_a_hidden_thinking_has_no_logprobs(stream: bool, hidden: dict[str, Any]) -> None:
    choice, text = await ask(
        logprobs=True, top_logprobs=2, thinking={"logprobs": True}, stream=stream, **hidden
    )

    assert set(choice["logprobs"]) == {"content"}
    assert text_of(choice["logprobs"]["content"]) == "It is ☃."
    assert choice["message"]["reasoning_content"] is None
    assert '"reasoning_content":[' not in text
    assert "H" not in {score["token"] for score in choice["logprobs"]["content"]}


@pytest.mark.parametrize("stream", [False, True])
async def test_no_logprobs_unless_requested(stream: bool) -> None:
    choice, text = await ask(stream=stream)

    assert choice["logprobs"] is None
    assert "bytes" not in text
