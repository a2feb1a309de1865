"""The OpenAI SDK against the real engine, and clients that go away."""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import httpx
import openai
import pytest

from tests.engine.asking import until_idle
from tests.engine.prompts import chain
from tests.engine.served import Served

PATIENCE = 60
BUDGET = {"max_thinking_tokens": 40, "thinking": {"landing": "hard"}}
LONG = {"min_thinking_tokens": 1500}


@pytest.fixture
async def sdk(served: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
        yield client


def asked(served: Served, steps: int = 6) -> dict[str, Any]:
    return {
        "model": served.engine.model.name,
        "messages": [{"role": "user", "content": chain(Random(steps), steps)}],
        "temperature": 0,
    }


async def test_create(served: Served, sdk: openai.AsyncOpenAI) -> None:
    completion = await sdk.chat.completions.create(**asked(served), extra_body=BUDGET)

    choice = completion.choices[0]
    thinking = getattr(choice, "thinking")  # noqa: B009
    assert getattr(choice.message, "reasoning_content").startswith("a:")  # noqa: B009
    assert (choice.message.content or "").startswith("The answer is")
    assert (thinking["tokens"], thinking["end_reason"]) == (40, "max")
    assert completion.usage is not None
    assert completion.usage.completion_tokens_details is not None
    assert completion.usage.completion_tokens_details.reasoning_tokens == 40


async def test_a_stream_says_what_a_whole_answer_says(
    served: Served, sdk: openai.AsyncOpenAI
) -> None:
    whole = (await sdk.chat.completions.create(**asked(served), extra_body=BUDGET)).choices[0]
    thought = answer = ""
    stream = await sdk.chat.completions.create(
        **asked(served), stream=True, stream_options={"include_usage": True}, extra_body=BUDGET
    )
    async for chunk in stream:
        for choice in chunk.choices:
            assert not (choice.delta.content and hasattr(choice.delta, "reasoning_content"))
            thought += getattr(choice.delta, "reasoning_content", "")
            answer += choice.delta.content or ""

    assert thought == getattr(whole.message, "reasoning_content")  # noqa: B009
    assert answer == whole.message.content
    assert chunk.usage is not None
    assert chunk.usage.completion_tokens_details is not None
    assert chunk.usage.completion_tokens_details.reasoning_tokens == 40


async def test_the_blocking_client(served: Served) -> None:
    def ask() -> str | None:
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
            answer = client.chat.completions.create(**asked(served), extra_body=BUDGET)
            return answer.choices[0].message.content

    assert "The answer is" in (await asyncio.to_thread(ask) or "")


async def test_errors(served: Served, sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="min_thinking_tokens") as bad:
        await sdk.chat.completions.create(
            **asked(served), extra_body={"min_thinking_tokens": 9, "max_thinking_tokens": 8}
        )
    with pytest.raises(openai.NotFoundError):
        await sdk.chat.completions.create(**{**asked(served), "model": "another"})

    assert bad.value.param == "min_thinking_tokens"


async def test_a_cancelled_request_leaves_the_engine(
    served: Served, sdk: openai.AsyncOpenAI
) -> None:
    begun = set(served.engine.recordings)
    asking = asyncio.ensure_future(sdk.chat.completions.create(**asked(served), extra_body=LONG))
    job = await first_token(served, begun)
    asking.cancel()
    async with httpx.AsyncClient(base_url=served.url) as http:
        await until_idle(http)
    assert len(served.engine.recordings[job].tokens) < LONG["min_thinking_tokens"]


async def test_a_stream_left_by_its_reader_leaves_the_engine(
    served: Served, sdk: openai.AsyncOpenAI
) -> None:
    begun = set(served.engine.recordings)
    stream = await sdk.chat.completions.create(**asked(served), stream=True, extra_body=LONG)
    job = await first_token(served, begun)
    await stream.close()
    async with httpx.AsyncClient(base_url=served.url) as http:
        await until_idle(http)
    assert len(served.engine.recordings[job].tokens) < LONG["min_thinking_tokens"]


async def first_token(served: Served, begun: set[str]) -> str:
    """The id of the job that was begun since, once the engine has given a token of it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for job in set(served.engine.recordings) - begun:
                if served.engine.recordings[job].tokens:
                    return job
            await asyncio.sleep(0.005)
