"""`POST /v1/responses`: budgets, limits, errors, and what OpenAI's SDK and Codex make of it."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from tests.server.harness import client
from tests.server.responses.asking import RESPONSES, TOOLS, body, engine, post, sdk_of
from tests.server.responses.grammar import Parser

CODEX: dict[str, Any] = json.loads((Path(__file__).parent / "data/codex.json").read_text())
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


class Result(BaseModel):
    """The schema of an answer."""

    sum: int


async def test_a_whole_response() -> None:
    script = Script(("Hm.",), "Yes.")
    over = FakeEngine(script, cached_tokens=3)
    response = (await post(over, metadata={"a": "b"}, user="ada", temperature=0.5)).json()

    reasoning, message = response["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert reasoning["encrypted_content"]
    assert message["content"][0]["text"] == "Yes."
    assert (response["status"], response["error"]) == ("completed", None)
    assert response["usage"]["input_tokens_details"] == {"cached_tokens": 3}
    assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": 3}
    assert response["thinking"]["tokens"] == 3
    assert response["cost"] is None
    assert (response["metadata"], response["user"]) == ({"a": "b"}, "ada")
    assert response["temperature"] == 0.5


async def test_a_codex_request() -> None:
    over = engine(Script(("I see.",), "It adds."))
    async with client(over, default_tier="low") as http:
        response = await http.post(RESPONSES, json=CODEX)

    assert response.status_code == 200, response.text
    assert response.headers["x-budget-tier"] == "low"
    assert response.headers["x-ignored-fields"] == (
        "client_metadata, tools[8].external_web_access, tools[8]"
    )
    parser = Parser(response.text)
    reasoning, message = parser.items
    assert reasoning["summary"]
    assert message["content"][0]["text"] == "It adds."
    usage = parser.last["usage"]
    assert {type(usage[name]) for name in ("input_tokens", "output_tokens", "total_tokens")} == {
        int
    }


async def test_the_sdks_create_parse_and_stream() -> None:
    script = Script(("Hm.",), '{"sum": 3}')
    async with client(engine(script)) as http:
        responses = sdk_of(http).responses
        created = await responses.create(model="fake", input="1 + 2?")
        parsed = await responses.parse(model="fake", input="1 + 2?", text_format=Result)
        async with responses.stream(model="fake", input="1 + 2?", text_format=Result) as stream:
            streamed = await stream.get_final_response()

    assert created.output_text == '{"sum": 3}'
    assert created.usage is not None
    assert created.usage.output_tokens_details.reasoning_tokens == 3
    assert parsed.output_parsed == streamed.output_parsed == Result(sum=3)


async def test_the_sdk_sends_a_response_back() -> None:
    over = engine(lambda job: Script(("seven..",), "" if b"tool" in bytes_of(job) else CALL))
    async with client(over) as http:
        responses = sdk_of(http).responses
        conversation: list[Any] = [{"role": "user", "content": "1 + 2?"}]
        budget = {"max_thinking_tokens": 10}
        first = await responses.create(
            model="fake", input=conversation, tools=TOOLS, extra_body=budget
        )
        conversation += first.output
        call = next(item for item in first.output if item.type == "function_call")
        output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "3"}
        second = await responses.create(
            model="fake", input=[*conversation, output], tools=TOOLS, extra_body=budget
        )

    assert budgets(over.jobs) == [10, 3]
    assert second.status == "completed"


def bytes_of(job: Job) -> bytes:
    return bytes(token for token in job.prompt_ids if token < 256)


def budgets(jobs: list[Job]) -> list[int | None]:
    return [job.budget.maximum for job in jobs]


async def continued(http: httpx.AsyncClient, fields: dict[str, Any], **changes: Any) -> None:
    """Begin a turn, and send its thinking back with the output of a tool."""
    first = (await http.post(RESPONSES, json=body(**fields))).json()
    items = [
        {"role": "user", "content": "hi"},
        {**first["output"][0], **changes},
        {"type": "function_call", "call_id": "1", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "3"},
    ]
    response = await http.post(RESPONSES, json=body(input=items, **fields))
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "fields", [{}, {"reasoning": {"summary": "auto"}}, {"reasoning": {"exclude": True}}]
)
@pytest.mark.parametrize("changes", [{}, {"content": None, "summary": []}, {"id": None}])
async def test_a_turn_has_one_budget_across_its_calls(
    fields: dict[str, Any], changes: dict[str, Any]
) -> None:
    over = FakeEngine(Script(("seven..",)))
    async with client(over) as http:
        await continued(http, {"max_thinking_tokens": 10, **fields}, **changes)

    assert budgets(over.jobs) == [10, 3]


@pytest.mark.parametrize(
    ("fields", "tier"),
    [
        ({}, "medium"),
        ({"reasoning": {"effort": "low"}}, "low"),
        ({"reasoning_effort": "low"}, "low"),
        ({"budget_tier": "low"}, "low"),
        ({"max_thinking_tokens": 7}, "custom"),
        ({"thinking": {"type": "disabled"}}, "custom"),
    ],
)
async def test_budgets(fields: dict[str, Any], tier: str) -> None:
    async with client(FakeEngine(), default_tier="medium") as http:
        response = await http.post(RESPONSES, json=body(**fields))

    assert response.headers["x-budget-tier"] == tier


async def test_a_stop_string_and_an_empty_answer() -> None:
    stopped = await post(FakeEngine(Script((), "one two")), stop=[" t"])
    empty = await post(FakeEngine(Script((), "")))

    assert stopped.json()["output"][0]["content"][0]["text"] == "one"
    assert empty.json()["output"][0]["content"][0]["text"] == ""


async def test_max_output_tokens_beyond_the_context_are_reduced() -> None:
    response = await post(FakeEngine(context_length=500), max_output_tokens=32000)

    assert response.headers["x-max-tokens"] == str(500 - response.json()["usage"]["input_tokens"])


async def test_log_probabilities() -> None:
    response = await post(FakeEngine(Script((), "ab")), top_logprobs=1)

    logprobs = response.json()["output"][0]["content"][0]["logprobs"]
    assert [entry["token"] for entry in logprobs] == ["a", "b"]
    assert [len(entry["top_logprobs"]) for entry in logprobs] == [1, 1]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"budget_tier": "none-such"}, 400, "budget_tier"),
        ({"previous_response_id": "resp_1"}, 400, "previous_response_id"),
        ({"background": True}, 400, "background"),
        ({"reasoning": {"exclude": True}, "include_reasoning": True}, 400, "reasoning.exclude"),
        ({"input": "x" * 300000}, 400, "input"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "custom", "name": "add"}},
            400,
            "tool_choice",
        ),
        ({"tools": [*TOOLS, TOOLS[0]]}, 400, "tools"),
        (
            {
                "tools": [
                    {"type": "web_search"},
                    {
                        **TOOLS[0],
                        "strict": True,
                        "parameters": {"enum": [5]},
                    },
                ]
            },
            400,
            "tools[1].parameters",
        ),
    ],
)
async def test_errors(fields: dict[str, Any], status: int, param: str) -> None:
    response = await post(engine(Script()), **fields)

    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["param"].startswith(param)
    assert param in error["message"]
