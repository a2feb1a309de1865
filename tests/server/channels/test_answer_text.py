"""The text of the answer, and the progress of a hidden thinking."""

import pytest

from proctor.server.channels.answer_text import AnswerText
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.generation import runner
from tests.server.harness import CHAT, body, client, parse_events


def test_text_ends_at_a_stop_string() -> None:
    answer = AnswerText(["END"])

    items = answer.push("It is 4E", []) + answer.push("ND 5", []) + answer.close()

    assert "".join(str(item) for item in items) == "It is 4"
    assert answer.stopped


def test_leading_newlines_of_an_answer_are_dropped() -> None:
    answer = AnswerText()
    answer.after_marker()

    items = [answer.push(text, []) for text in ("\n", "\n", "\nIt", "\n\n")]

    assert items == [[], [], ["It"], ["\n\n"]]


async def test_a_hidden_thinking_reports_progress() -> None:
    engine = FakeEngine(Script(("Let me see.",), "42"))
    async with client(engine) as http:
        response = await http.post(
            CHAT,
            json=body(stream=True, reasoning_format="hidden", max_thinking_tokens=50),
        )

    reports = [
        event.choice["thinking"]
        for event in parse_events(response.text)
        if event.data != "[DONE]" and "thinking" in event.choice
    ]
    *progress, last = reports
    assert progress == [{"tokens": 1, "max_tokens": 50}]
    assert last["tokens"] == len("Let me see.")
    assert "see" not in response.text


async def test_progress_is_reported_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "PROGRESS_SECONDS", 0)
    async with client(FakeEngine(Script(("abcd",), "42"))) as http:
        response = await http.post(CHAT, json=body(stream=True, reasoning_format="hidden"))

    reports = [
        e.choice["thinking"] for e in parse_events(response.text)[:-1] if "thinking" in e.choice
    ]
    assert [each["tokens"] for each in reports] == [1, 2, 3, 4, 4]


async def test_no_progress_where_the_thinking_is_visible() -> None:
    async with client(FakeEngine()) as http:
        response = await http.post(CHAT, json=body(stream=True))

    reports = [
        e for e in parse_events(response.text) if e.data != "[DONE]" and "thinking" in e.choice
    ]
    assert len(reports) == 1
