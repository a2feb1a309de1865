"""`continue_final_message`: an answer that continues the last message."""

from typing import Any

import pytest

from proctor.server.engines.base import Job
from proctor.server.engines.fake import SPELLING, FakeEngine, Script
from tests.server.api.test_errors import assert_error
from tests.server.harness import CHAT, body, client, parse_events

USER = {"role": "user", "content": "hi"}
GO_ON = {"continue_final_message": True, "add_generation_prompt": False}


def fields(last: dict[str, Any], **more: Any) -> dict[str, Any]:
    messages = [USER, {"role": "assistant", **last}]
    return {"model": "fake", "messages": messages, **GO_ON, **more}


def prompt(job: Job) -> str:
    parts = (SPELLING.get(token) or bytes([token]) for token in job.prompt_ids)
    return b"".join(parts).decode()


async def post(request: dict[str, Any], script: Script, **engine: Any) -> tuple[Job, Any]:
    fake = FakeEngine(script, **engine)
    async with client(fake) as http:
        response = await http.post(CHAT, json=request)
    assert response.status_code == 200, response.text
    (job,) = fake.jobs
    return job, response.json()


async def test_an_answer_is_continued() -> None:
    job, answer = await post(fields({"content": "The answer "}), Script((), "is 4."))

    assert prompt(job).endswith("<|im_start|>assistant\nThe answer ")
    assert not job.budget.opened
    assert answer["choices"][0]["message"]["content"] == "is 4."
    assert answer["choices"][0]["thinking"]["end_reason"] == "disabled"


async def test_add_generation_prompt_may_be_omitted() -> None:
    request_body = fields({"content": "The"})
    del request_body["add_generation_prompt"]

    job, _ = await post(request_body, Script((), "re"))

    assert prompt(job).endswith("assistant\nThe")


@pytest.mark.parametrize("opens", [True, False])
@pytest.mark.parametrize(
    "last",
    [
        {"content": None, "reasoning_content": "so far"},
        {"content": "", "reasoning": "so far"},
        {"content": "<think>\nso far"},
        {"content": "<think>so far"},
    ],
)
async def test_a_thinking_is_continued(last: dict[str, Any], opens: bool) -> None:
    request_body = fields(last, max_thinking_tokens=20)

    job, answer = await post(request_body, Script((", so good " * 9,), "4"), opens=opens)

    assert prompt(job).endswith("<|im_start|>assistant\n<think>\nso far")
    assert job.budget.opened
    assert job.budget.maximum == 20 - len("so far")
    assert answer["choices"][0]["message"]["reasoning_content"] == ", so good " + ", so"
    assert answer["choices"][0]["message"]["content"] == "4"


@pytest.mark.parametrize("content", ["<think>", "<think>\n"])
async def test_an_empty_thinking_is_continued(content: str) -> None:
    job, answer = await post(fields({"content": content}), Script(("so",), "4"))

    assert prompt(job).endswith("<|im_start|>assistant\n<think>\n")
    assert answer["choices"][0]["message"]["reasoning_content"] == "so"


async def test_a_closed_thinking_is_not_continued() -> None:
    last = {"content": "<think>\nso\n</think>\n\nThe", "reasoning_content": None}

    job, _ = await post(fields(last), Script((), "re"))

    assert prompt(job).endswith("assistant\nThe")
    assert not job.budget.opened


@pytest.mark.parametrize("default", ["auto", "high", "custom"])
async def test_default_budgets_do_not_prevent_a_continuation(default: str) -> None:
    engine = FakeEngine(Script((), "re"))
    hard = "Prove that there are infinitely many primes of the form 4k+3."
    request_body = fields({"content": "The"}) | {
        "messages": [{"role": "user", "content": hard}, {"role": "assistant", "content": "The"}]
    }
    async with client(engine, default_tier=default) as http:
        answers = [
            await http.post(CHAT, json=request_body | more)
            for more in ({}, {"budget_tier": "auto"})
        ]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert not any(job.budget.demands_thinking for job in engine.jobs)


async def test_echo_repeats_the_message_whole_and_streamed() -> None:
    request_body = fields({"content": "The "}, echo=True)
    async with client(FakeEngine(Script((), "answer"))) as http:
        whole = (await http.post(CHAT, json=request_body)).json()
        streamed = parse_events((await http.post(CHAT, json=request_body | {"stream": True})).text)[
            :-1
        ]

    assert whole["choices"][0]["message"]["content"] == "The answer"
    assert whole["usage"]["completion_tokens"] == len("answer") + 1
    assert "".join(one.choice["delta"].get("content", "") for one in streamed) == "The answer"


@pytest.mark.parametrize(
    ("request_body", "param"),
    [
        (body(**GO_ON), "continue_final_message"),
        (fields({"content": ""}), "continue_final_message"),
        (
            {"model": "fake", "messages": [{"role": "assistant", "content": "<think>a"}], **GO_ON},
            "continue_final_message",
        ),
        (fields({"content": "a"}, add_generation_prompt=True), "continue_final_message"),
        (fields({"content": "a"}, continue_final_message=False), "add_generation_prompt"),
        (body(add_generation_prompt=False), "add_generation_prompt"),
        (body(echo=True), "echo"),
        (body(continue_final_message="yes"), "continue_final_message"),
        (
            fields({"content": "a"}, response_format={"type": "json_object"}),
            "continue_final_message",
        ),
        (fields({"content": "a"}, min_thinking_tokens=1), "min_thinking_tokens"),
        (fields({"content": "a"}, budget_tier="high"), "budget_tier"),
        (
            fields(
                {
                    "content": "a",
                    "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
                }
            ),
            "continue_final_message",
        ),
    ],
)
async def test_contradicting_fields_are_named(request_body: dict[str, Any], param: str) -> None:
    engine = FakeEngine()
    async with client(engine) as http:
        assert_error(await http.post(CHAT, json=request_body), 400, param)
    assert not engine.jobs


@pytest.mark.parametrize(
    "request_body",
    [body(add_generation_prompt=True), body(continue_final_message=False, echo=False)],
)
async def test_values_without_effect_are_accepted(request_body: dict[str, Any]) -> None:
    _, answer = await post(request_body, Script((), "4"))

    assert answer["choices"][0]["message"]["content"] == "4"
