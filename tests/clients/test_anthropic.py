"""The Anthropic SDK for Python on the real engine."""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any, Literal

import anthropic
import pytest
from pydantic import BaseModel

from tests.engine.gateway import Gateway
from tests.engine.prompts import chain

THINKS = 40
THINKING = {"type": "enabled", "budget_tokens": THINKS, "landing": "hard"}
GREEDY = {"temperature": 0}
"""The SDK has no parameter for the temperature."""


class Result(BaseModel):
    """The schema of the answer. Without numbers: the SDK would remove their bounds."""

    size: Literal["small", "large"]
    sure: bool


ADD = {
    "name": "add",
    "description": "Add two numbers.",
    "strict": True,
    "input_schema": {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 0, "maximum": 9},
            "b": {"type": "integer", "minimum": 0, "maximum": 9},
        },
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}
MUST_CALL: list[anthropic.types.ToolChoiceParam] = [
    {"type": "any", "disable_parallel_tool_use": True},
    {"type": "tool", "name": "add", "disable_parallel_tool_use": True},
]
"""With parallel calls, the tiny model would not stop."""


@pytest.fixture
async def sdk(vllm_gateway: Gateway) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=vllm_gateway.url, auth_token="none") as client:
        yield client


@pytest.fixture
def fields(vllm_gateway: Gateway) -> dict[str, Any]:
    """The fields of a request with a deterministic answer."""
    return {
        "model": vllm_gateway.engine.model.name,
        "max_tokens": 400,
        "messages": [{"role": "user", "content": chain(Random(6), 6)}],
        "thinking": THINKING,
        "extra_body": GREEDY,
    }


def thinking_tokens(message: anthropic.types.Message) -> int:
    details = message.usage.output_tokens_details
    assert details is not None
    return details.thinking_tokens


def without_ids(message: Any) -> dict[str, Any]:
    """Return what is the same in each response, without what the SDK does not accumulate."""
    plain: dict[str, Any] = message.model_dump(exclude={"id", "cost", "thinking", "usage"})
    plain["output_tokens"] = message.usage.output_tokens, thinking_tokens(message)
    for block in plain["content"]:
        block.pop("signature", None)
        block.pop("id", None)
    return plain


async def final(sdk: anthropic.AsyncAnthropic, fields: dict[str, Any]) -> anthropic.types.Message:
    """Return what the SDK accumulates from a stream."""
    async with sdk.messages.stream(**fields) as stream:
        return await stream.get_final_message()


async def test_create(sdk: anthropic.AsyncAnthropic, fields: dict[str, Any]) -> None:
    message = await sdk.messages.create(**fields)

    thought, answer = message.content
    assert thought.type == "thinking"
    assert thought.thinking.startswith("a:")
    assert thought.signature
    assert answer.type == "text"
    assert answer.text.startswith("The answer is")
    assert message.stop_reason == "end_turn"
    assert thinking_tokens(message) == THINKS


async def test_the_accumulator_equals_the_complete_answer(
    sdk: anthropic.AsyncAnthropic, fields: dict[str, Any]
) -> None:
    whole = await sdk.messages.create(**fields)
    texts = {"thinking": "", "text": ""}
    async with sdk.messages.stream(**fields) as stream:
        async for event in stream:
            if event.type == "thinking":
                texts["thinking"] += event.thinking
                assert event.snapshot == texts["thinking"]
            if event.type == "text":
                texts["text"] += event.text
        accumulated = await stream.get_final_message()

    thought, answer = accumulated.content
    assert thought.type == "thinking"
    assert answer.type == "text"
    assert texts == {"thinking": thought.thinking, "text": answer.text}
    assert without_ids(accumulated) == without_ids(whole)


async def test_a_raw_stream(sdk: anthropic.AsyncAnthropic, fields: dict[str, Any]) -> None:
    stream = await sdk.messages.create(**fields, stream=True)
    kinds = [event.type async for event in stream]

    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 2


@pytest.mark.parametrize("choice", MUST_CALL, ids=["any", "tool"])
async def test_tools_that_must_be_called(
    sdk: anthropic.AsyncAnthropic, fields: dict[str, Any], choice: dict[str, Any]
) -> None:
    fields |= {"tools": [ADD], "tool_choice": choice}
    whole, streamed = await sdk.messages.create(**fields), await final(sdk, fields)

    thought, call = whole.content
    assert (thought.type, call.type, call.name) == ("thinking", "tool_use", "add")
    assert call.id
    assert set(call.input) == {"a", "b"}
    assert whole.stop_reason == "tool_use"
    assert without_ids(streamed) == without_ids(whole)


async def test_tools_that_may_be_called(
    sdk: anthropic.AsyncAnthropic, fields: dict[str, Any]
) -> None:
    fields |= {"tools": [ADD], "tool_choice": {"type": "auto"}}
    whole, streamed = await sdk.messages.create(**fields), await final(sdk, fields)

    assert whole.stop_reason in ("end_turn", "tool_use", "max_tokens")
    assert without_ids(streamed) == without_ids(whole)


async def test_a_turn_has_one_budget_across_a_tool_call(
    sdk: anthropic.AsyncAnthropic, fields: dict[str, Any], vllm_gateway: Gateway
) -> None:
    budget = 60
    earlier = set(vllm_gateway.engine.recordings)
    fields |= {"tools": [ADD], "thinking": THINKING | {"min_tokens": THINKS}}
    asking = await sdk.messages.create(**fields, tool_choice=MUST_CALL[0])
    call = asking.content[-1]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "7"}
    history = [
        *fields["messages"],
        {"role": "assistant", "content": asking.content},
        {"role": "user", "content": [result]},
    ]
    thinking = {"type": "enabled", "budget_tokens": budget, "landing": "hard"}
    answering = await sdk.messages.create(
        **fields | {"messages": history, "thinking": thinking}, tool_choice={"type": "none"}
    )

    jobs = [job for job in vllm_gateway.engine.recordings if job not in earlier]
    counted = [len(vllm_gateway.engine.thinking_ids(job)) for job in jobs]
    assert [thinking_tokens(asking), thinking_tokens(answering)] == counted
    assert counted[0] == THINKS
    assert 0 < counted[1] <= budget - THINKS


@pytest.mark.parametrize("thinking", [{"type": "disabled"}, None])
async def test_without_thinking(
    sdk: anthropic.AsyncAnthropic, fields: dict[str, Any], thinking: Any
) -> None:
    del fields["thinking"]
    if thinking is not None:
        fields["thinking"] = thinking

    message = await sdk.messages.create(**fields)

    assert [block.type for block in message.content] == ["text"]
    assert thinking_tokens(message) == 0


async def test_adaptive_thinking_with_an_effort(
    sdk: anthropic.AsyncAnthropic, fields: dict[str, Any]
) -> None:
    fields |= {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}
    raw = await sdk.messages.with_raw_response.create(**fields)

    assert raw.headers["x-budget-tier"] == "low"
    assert (await raw.parse()).content[0].type == "thinking"


async def test_omitted_thinking_can_be_sent_back(
    sdk: anthropic.AsyncAnthropic, fields: dict[str, Any]
) -> None:
    shown = await sdk.messages.create(**fields)
    hidden = await final(sdk, fields | {"thinking": THINKING | {"display": "omitted"}})
    question = {"role": "user", "content": "Start with 1, add 2. What are the last two digits?"}

    async def next_prompt(message: anthropic.types.Message) -> int:
        turn = {"role": "assistant", "content": message.content}
        history = [*fields["messages"], turn, question]
        return (await sdk.messages.create(**fields | {"messages": history})).usage.input_tokens

    thought, answer = hidden.content
    assert thought.type == "thinking"
    assert thought.thinking == ""
    shown_answer = shown.content[1]
    assert answer.type == "text"
    assert shown_answer.type == "text"
    assert answer.text == shown_answer.text
    assert thinking_tokens(hidden) == THINKS
    assert await next_prompt(hidden) == await next_prompt(shown)


async def test_count_tokens(sdk: anthropic.AsyncAnthropic, fields: dict[str, Any]) -> None:
    fields |= {"tools": [ADD], "system": "Be brief."}
    prompt = {name: fields[name] for name in ("model", "messages", "system", "tools", "thinking")}
    counted = await sdk.messages.count_tokens(**prompt)
    usage = (await sdk.messages.create(**fields)).usage

    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


async def test_structured_output(sdk: anthropic.AsyncAnthropic, fields: dict[str, Any]) -> None:
    parsed = await sdk.messages.parse(**fields, output_format=Result)
    async with sdk.messages.stream(**fields, output_format=Result) as stream:
        streamed = await stream.get_final_message()

    assert isinstance(parsed.parsed_output, Result)
    assert streamed.parsed_output == parsed.parsed_output
    assert parsed.content[0].type == "thinking"


async def test_errors(sdk: anthropic.AsyncAnthropic, fields: dict[str, Any]) -> None:
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        await sdk.messages.create(**fields | {"extra_body": {"temperature": 3}})
    with pytest.raises(anthropic.NotFoundError, match="another"):
        await sdk.messages.create(**fields | {"model": "another"})
    image = {"type": "base64", "media_type": "image/png", "data": "eA=="}
    message = {"role": "user", "content": [{"type": "image", "source": image}]}
    with pytest.raises(anthropic.BadRequestError, match="text only"):
        await sdk.messages.create(**fields | {"messages": [message]})


async def test_models(sdk: anthropic.AsyncAnthropic, vllm_gateway: Gateway) -> None:
    name = vllm_gateway.engine.model.name

    assert name in [model.id async for model in sdk.models.list()]
    assert (await sdk.models.retrieve(name)).id == name


async def test_the_blocking_client(vllm_gateway: Gateway, fields: dict[str, Any]) -> None:
    def call_all() -> None:
        with anthropic.Anthropic(base_url=vllm_gateway.url, api_key="none") as client:
            whole = client.messages.create(**fields)
            with client.messages.stream(**fields) as stream:
                assert "".join(stream.text_stream) == whole.content[1].text
                assert without_ids(stream.get_final_message()) == without_ids(whole)

    await asyncio.to_thread(call_all)
