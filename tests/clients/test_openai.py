"""The OpenAI SDK for Python on the real engine."""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionStreamOptionsParam
from pydantic import BaseModel, Field

from tests.engine.client import until_idle
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain
from tests.waiting import PATIENCE

BUDGET = {"max_thinking_tokens": 40, "thinking": {"landing": "hard"}}
LONG = {"min_thinking_tokens": 1500}
WITH_USAGE: ChatCompletionStreamOptionsParam = {"include_usage": True}


class Result(BaseModel):
    """The schema of the answer."""

    digits: int = Field(ge=0, le=99)
    sure: bool


class Add(BaseModel):
    """Add two numbers."""

    a: int
    b: int


@pytest.fixture
async def sdk(vllm_gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{vllm_gateway.url}/v1", api_key="none") as client:
        yield client


@pytest.fixture
def fields(vllm_gateway: Gateway) -> dict[str, Any]:
    """The fields of a request with a deterministic answer."""
    return {
        "model": vllm_gateway.engine.model.name,
        "messages": [{"role": "user", "content": chain(Random(6), 6)}],
        "temperature": 0,
        "extra_body": BUDGET,
    }


def assert_complete(completion: Any) -> None:
    """Check the thinking, the answer and the budget of a completion."""
    (choice,) = completion.choices
    assert choice.message.reasoning_content.startswith("a:")
    assert choice.message.content.startswith("The answer is")
    assert choice.finish_reason == "stop"
    assert completion.usage.completion_tokens_details.reasoning_tokens == 40


async def test_create(sdk: openai.AsyncOpenAI, fields: dict[str, Any]) -> None:
    completion = await sdk.chat.completions.create(**fields)

    assert_complete(completion)
    thinking = getattr(completion.choices[0], "thinking")  # noqa: B009
    assert (thinking["tokens"], thinking["end_reason"]) == (40, "max")


async def test_a_stream_equals_the_complete_answer(
    sdk: openai.AsyncOpenAI, fields: dict[str, Any]
) -> None:
    whole = (await sdk.chat.completions.create(**fields)).choices[0]
    thinking = answer = ""
    stream = await sdk.chat.completions.create(**fields, stream=True, stream_options=WITH_USAGE)
    async for chunk in stream:
        for choice in chunk.choices:
            reasoning = getattr(choice.delta, "reasoning_content")  # noqa: B009
            assert not (choice.delta.content and reasoning)
            thinking += reasoning or ""
            answer += choice.delta.content or ""

    assert thinking == getattr(whole.message, "reasoning_content")  # noqa: B009
    assert answer == whole.message.content
    assert chunk.usage is not None
    assert chunk.usage.completion_tokens_details is not None
    assert chunk.usage.completion_tokens_details.reasoning_tokens == 40


async def test_the_accumulator_equals_the_complete_answer(
    sdk: openai.AsyncOpenAI, fields: dict[str, Any]
) -> None:
    whole = (await sdk.chat.completions.create(**fields)).choices[0]
    content = ""
    async with sdk.chat.completions.stream(**fields, stream_options=WITH_USAGE) as stream:
        async for event in stream:
            if event.type == "content.delta":
                content += event.delta
                assert event.snapshot == content
        final = await stream.get_final_completion()

    assert_complete(final)
    assert content == final.choices[0].message.content == whole.message.content
    thinking = getattr(final.choices[0].message, "reasoning_content")  # noqa: B009
    assert thinking == getattr(whole.message, "reasoning_content")  # noqa: B009


async def test_parse(sdk: openai.AsyncOpenAI, fields: dict[str, Any]) -> None:
    completion = await sdk.chat.completions.parse(**fields, response_format=Result)

    (choice,) = completion.choices
    assert isinstance(choice.message.parsed, Result)
    assert choice.message.parsed == Result.model_validate_json(choice.message.content or "")
    assert getattr(choice.message, "reasoning_content").startswith("a:")  # noqa: B009


async def test_a_parsed_stream(sdk: openai.AsyncOpenAI, fields: dict[str, Any]) -> None:
    async with sdk.chat.completions.stream(**fields, response_format=Result) as stream:
        parts = [event.parsed async for event in stream if event.type == "content.delta"]
        final = await stream.get_final_completion()

    result = final.choices[0].message.parsed
    assert isinstance(result, Result)
    assert parts[-1] == result.model_dump()


@pytest.mark.parametrize("named", [True, False])
async def test_tools(sdk: openai.AsyncOpenAI, fields: dict[str, Any], named: bool) -> None:
    tools = [openai.pydantic_function_tool(Add)]
    choice = {"type": "function", "function": {"name": "Add"}} if named else "required"
    # With parallel calls, the tiny model would not stop.
    fields |= {"tools": tools, "tool_choice": choice, "parallel_tool_calls": False}
    completion = await sdk.chat.completions.parse(**fields)

    (call,) = completion.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Add)
    assert call.id
    async with sdk.chat.completions.stream(**fields) as stream:
        events = [e async for e in stream if e.type == "tool_calls.function.arguments.done"]
        final = await stream.get_final_completion()
    (streamed,) = final.choices[0].message.tool_calls or []
    arguments = call.function.parsed_arguments
    assert [event.parsed_arguments for event in events] == [arguments]
    assert streamed.function.parsed_arguments == arguments
    assert final.choices[0].finish_reason == completion.choices[0].finish_reason


async def test_log_probabilities(sdk: openai.AsyncOpenAI, fields: dict[str, Any]) -> None:
    completion = await sdk.chat.completions.create(**fields, logprobs=True, top_logprobs=2)

    (choice,) = completion.choices
    assert choice.logprobs is not None
    logprobs = choice.logprobs.content or []
    assert choice.message.content in "".join(entry.token for entry in logprobs)
    assert {len(entry.top_logprobs) for entry in logprobs} == {2}


async def test_completions(sdk: openai.AsyncOpenAI, vllm_gateway: Gateway) -> None:
    fields: dict[str, Any] = {
        "model": vllm_gateway.engine.model.name,
        "prompt": "so 3",
        "max_tokens": 8,
        "temperature": 0,
    }
    whole = (await sdk.completions.create(**fields)).choices[0].text
    stream = await sdk.completions.create(**fields, stream=True)

    assert whole
    assert "".join([c.text async for chunk in stream for c in chunk.choices]) == whole


async def test_the_blocking_client(vllm_gateway: Gateway, fields: dict[str, Any]) -> None:
    def call_all() -> None:
        with openai.OpenAI(base_url=f"{vllm_gateway.url}/v1", api_key="none") as client:
            whole = client.chat.completions.create(**fields)
            assert_complete(whole)
            chunks = client.chat.completions.create(**fields, stream=True)
            content = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            assert content == whole.choices[0].message.content
            with client.chat.completions.stream(**fields, stream_options=WITH_USAGE) as stream:
                assert_complete(stream.get_final_completion())
            parsed = client.chat.completions.parse(**fields, response_format=Result)
            assert isinstance(parsed.choices[0].message.parsed, Result)

    await asyncio.to_thread(call_all)


async def test_an_effort_selects_a_tier(sdk: openai.AsyncOpenAI, fields: dict[str, Any]) -> None:
    del fields["extra_body"]
    raw = await sdk.chat.completions.with_raw_response.create(**fields, reasoning_effort="low")

    assert raw.headers["x-budget-tier"] == "low"
    thinking = getattr(raw.parse().choices[0], "thinking")  # noqa: B009
    assert thinking["tokens"] <= thinking["max_tokens"]


async def test_models(sdk: openai.AsyncOpenAI, vllm_gateway: Gateway) -> None:
    name = vllm_gateway.engine.model.name
    assert name in [model.id async for model in sdk.models.list()]
    assert (await sdk.models.retrieve(name)).id == name


async def test_a_cancelled_request_is_aborted_in_the_engine(
    vllm_gateway: Gateway, sdk: openai.AsyncOpenAI, fields: dict[str, Any]
) -> None:
    earlier = set(vllm_gateway.engine.recordings)
    request = asyncio.ensure_future(sdk.chat.completions.create(**fields | {"extra_body": LONG}))
    job = await first_token(vllm_gateway, earlier)
    request.cancel()
    async with httpx.AsyncClient(base_url=vllm_gateway.url) as http:
        await until_idle(http)
    assert len(vllm_gateway.engine.recordings[job].tokens) < LONG["min_thinking_tokens"]


async def test_an_abandoned_stream_is_aborted_in_the_engine(
    vllm_gateway: Gateway, sdk: openai.AsyncOpenAI, fields: dict[str, Any]
) -> None:
    earlier = set(vllm_gateway.engine.recordings)
    fields |= {"extra_body": LONG}
    async with sdk.chat.completions.stream(**fields) as stream:
        job = await first_token(vllm_gateway, earlier)
        async for _ in stream:
            break
    async with httpx.AsyncClient(base_url=vllm_gateway.url) as http:
        await until_idle(http)
    assert len(vllm_gateway.engine.recordings[job].tokens) < LONG["min_thinking_tokens"]


async def first_token(gateway: Gateway, earlier: set[str]) -> str:
    """Wait for the first token of a new job, and return the id of the job."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for job in set(gateway.engine.recordings) - earlier:
                if gateway.engine.recordings[job].tokens:
                    return job
            await asyncio.sleep(0.005)
