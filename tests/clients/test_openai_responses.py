"""The OpenAI SDK for Python on the real engine, by the Responses API."""

from collections.abc import AsyncIterator
from random import Random
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from tests.engine.gateway import Gateway
from tests.engine.prompts import chain

THINKS = 40
BUDGET = {"max_thinking_tokens": THINKS, "thinking": {"landing": "hard"}}
ADD = {
    "type": "function",
    "name": "add",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 0, "maximum": 9},
            "b": {"type": "integer", "minimum": 0, "maximum": 9},
        },
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}
MUST_CALL = ["required", {"type": "function", "name": "add"}]


class Result(BaseModel):
    """The schema of the answer."""

    size: Literal["small", "large"]
    sure: bool


@pytest.fixture
async def sdk(vllm_gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{vllm_gateway.url}/v1", api_key="none") as client:
        yield client


@pytest.fixture
def fields(vllm_gateway: Gateway) -> dict[str, Any]:
    """The fields of a request with a deterministic answer."""
    return {
        "model": vllm_gateway.engine.model.name,
        "input": chain(Random(6), 6),
        "temperature": 0,
        "extra_body": BUDGET,
    }


def thinking_tokens(response: Any) -> int:
    tokens: int = response.usage.output_tokens_details.reasoning_tokens
    return tokens


def output_of(response: Any) -> list[dict[str, Any]]:
    """Return the output without what differs in each response, and what its helpers add."""
    items: list[dict[str, Any]] = [item.model_dump() for item in response.output]
    for item in items:
        for name in ("id", "call_id", "encrypted_content"):
            item.pop(name, None)
        for part in item.get("content") or ():
            part.pop("parsed", None)
    return items


async def final(sdk: openai.AsyncOpenAI, fields: dict[str, Any]) -> Any:
    """Return what the SDK accumulates from a stream."""
    async with sdk.responses.stream(**fields) as stream:
        return await stream.get_final_response()


async def test_create(sdk: openai.AsyncOpenAI, fields: dict[str, Any]) -> None:
    response = await sdk.responses.create(**fields)

    thought, message = response.output
    assert (thought.type, message.type) == ("reasoning", "message")
    assert thought.content[0].text.startswith("a:")
    assert response.output_text.startswith("The answer is")
    assert response.status == "completed"
    assert thinking_tokens(response) == THINKS


async def test_the_accumulator_equals_the_complete_response(
    sdk: openai.AsyncOpenAI, fields: dict[str, Any]
) -> None:
    whole = await sdk.responses.create(**fields)
    texts = {"response.reasoning_text.delta": "", "response.output_text.delta": ""}
    async with sdk.responses.stream(**fields) as stream:
        async for event in stream:
            match event.type:
                case "response.reasoning_text.delta" | "response.output_text.delta":
                    texts[event.type] += event.delta
        accumulated = await stream.get_final_response()

    assert output_of(accumulated) == output_of(whole)
    assert [*texts.values()] == [whole.output[0].content[0].text, whole.output_text]
    assert thinking_tokens(accumulated) == THINKS


async def test_summaries(sdk: openai.AsyncOpenAI, fields: dict[str, Any]) -> None:
    whole = await sdk.responses.create(**fields)
    fields["reasoning"] = {"summary": "auto"}
    summarized, streamed = await sdk.responses.create(**fields), await final(sdk, fields)

    assert summarized.output[0].summary[0].text == whole.output[0].content[0].text
    assert output_of(streamed) == output_of(summarized)


async def test_parse(sdk: openai.AsyncOpenAI, fields: dict[str, Any]) -> None:
    parsed = await sdk.responses.parse(**fields, text_format=Result)
    async with sdk.responses.stream(**fields, text_format=Result) as stream:
        streamed = await stream.get_final_response()

    assert isinstance(parsed.output_parsed, Result)
    assert streamed.output_parsed == parsed.output_parsed


@pytest.mark.parametrize("choice", MUST_CALL, ids=["required", "named"])
async def test_tools_that_must_be_called(
    sdk: openai.AsyncOpenAI, fields: dict[str, Any], choice: Any
) -> None:
    # With parallel calls, the tiny model would not stop.
    fields |= {"tools": [ADD], "tool_choice": choice, "parallel_tool_calls": False}
    whole, streamed = await sdk.responses.create(**fields), await final(sdk, fields)

    thought, call = whole.output
    assert (thought.type, call.type, call.name) == ("reasoning", "function_call", "add")
    assert call.call_id
    assert [item["type"] for item in output_of(streamed)] == ["reasoning", "function_call"]
    assert streamed.output[1].arguments == call.arguments


async def test_a_turn_has_one_budget_across_a_tool_call(
    sdk: openai.AsyncOpenAI, fields: dict[str, Any], vllm_gateway: Gateway
) -> None:
    budget = 60
    earlier = set(vllm_gateway.engine.recordings)
    tools: dict[str, Any] = {"tools": [ADD], "parallel_tool_calls": False}
    spending = BUDGET | {"min_thinking_tokens": THINKS}
    asking = await sdk.responses.create(
        **fields | {"extra_body": spending}, **tools, tool_choice="required"
    )
    call = asking.output[-1]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "7"}
    history = [{"role": "user", "content": fields["input"]}, *asking.output, result]
    answering = await sdk.responses.create(
        **fields | {"input": history, "extra_body": BUDGET | {"max_thinking_tokens": budget}},
        **tools,
        tool_choice="none",
    )

    jobs = [job for job in vllm_gateway.engine.recordings if job not in earlier]
    counted = [len(vllm_gateway.engine.thinking_ids(job)) for job in jobs]
    assert [thinking_tokens(asking), thinking_tokens(answering)] == counted
    assert counted[0] == THINKS
    assert 0 < counted[1] <= budget - THINKS


async def test_an_effort_selects_a_tier(sdk: openai.AsyncOpenAI, fields: dict[str, Any]) -> None:
    del fields["extra_body"]
    raw = await sdk.responses.with_raw_response.create(**fields, reasoning={"effort": "low"})

    assert raw.headers["x-budget-tier"] == "low"


async def test_errors(sdk: openai.AsyncOpenAI, fields: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        await sdk.responses.create(**fields | {"temperature": 3})
    with pytest.raises(openai.NotFoundError):
        await sdk.responses.create(**fields | {"model": "another"})
    with pytest.raises(openai.BadRequestError) as misspelled:
        await sdk.responses.create(**fields | {"extra_body": {"max_thinking_token": 5}})

    assert bad.value.param == "temperature"
    assert misspelled.value.param == "max_thinking_token"


async def test_custom_tools_with_a_regular_expression(
    sdk: openai.AsyncOpenAI, fields: dict[str, Any]
) -> None:
    grammar = {"type": "grammar", "syntax": "regex", "definition": "[a-c]{3}[0-9]"}
    tool: Any = {"type": "custom", "name": "code", "format": grammar}
    response = await sdk.responses.create(
        **fields,
        tools=[tool],
        tool_choice={"type": "custom", "name": "code"},
        parallel_tool_calls=False,
    )

    (call,) = [item for item in response.output if item.type == "custom_tool_call"]
    assert len(call.input) == 4
    assert call.input[:3].strip("abc") == ""
    assert call.input[3].isdigit()
