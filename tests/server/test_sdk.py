"""The OpenAI SDK, against a real server."""

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest

from server.engines.fake import FakeEngine, Script
from tests.server.harness import Gate, body, listening, soon

BUDGET = {"max_thinking_tokens": 4}
SCRIPT = Script(("thinking",), "the answer")


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with listening(FakeEngine(SCRIPT)) as base:
        yield f"{base}/v1"


async def test_create(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as sdk:
        completion = await sdk.chat.completions.create(**body(), extra_body=BUDGET)

    choice = completion.choices[0]
    assert choice.message.content == "the answer"
    assert getattr(choice.message, "reasoning_content") == "thin"  # noqa: B009
    assert getattr(choice, "thinking")["end_reason"] == "max"  # noqa: B009
    assert completion.usage is not None
    assert completion.usage.completion_tokens_details is not None
    assert completion.usage.completion_tokens_details.reasoning_tokens == 4


async def test_an_effort_chooses_a_tier(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(
            **body(), reasoning_effort="medium"
        )

    assert raw.headers["x-budget-tier"] == "medium"
    assert getattr(raw.parse().choices[0], "thinking")["max_tokens"] > 0  # noqa: B009


async def test_stream(url: str) -> None:
    thought = answer = ""
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as sdk:
        stream = await sdk.chat.completions.create(
            **body(), stream=True, stream_options={"include_usage": True}, extra_body=BUDGET
        )
        async for chunk in stream:
            for choice in chunk.choices:
                thought += getattr(choice.delta, "reasoning_content", "")
                answer += choice.delta.content or ""

    assert (thought, answer) == ("thin", "the answer")
    assert chunk.usage is not None
    assert chunk.usage.completion_tokens > 0


def blocking(url: str) -> tuple[str | None, str]:
    with openai.OpenAI(base_url=url, api_key="none") as sdk:
        whole = sdk.chat.completions.create(**body()).choices[0].message.content
        chunks = sdk.chat.completions.create(**body(), stream=True)
        return whole, "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


async def test_the_blocking_client(url: str) -> None:
    assert await asyncio.to_thread(blocking, url) == ("the answer", "the answer")


async def test_models(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as sdk:
        assert [model.id async for model in sdk.models.list()] == ["fake"]
        assert (await sdk.models.retrieve("fake")).id == "fake"


async def test_errors(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as sdk:
        with pytest.raises(openai.BadRequestError) as bad:
            await sdk.chat.completions.create(**body(temperature=3))
        with pytest.raises(openai.NotFoundError):
            await sdk.chat.completions.create(**body(model="other"))

    assert bad.value.param == "temperature"


async def test_an_error_in_a_stream() -> None:
    async with (
        listening(FakeEngine(die_after=2)) as base,
        openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="none") as sdk,
    ):
        stream = await sdk.chat.completions.create(**body(), stream=True)
        with pytest.raises(openai.APIError, match="the engine died"):
            async for _ in stream:
                pass


async def test_cancelling_aborts() -> None:
    gate = Gate(3)
    engine = FakeEngine(before_token=gate)

    async with (
        listening(engine) as base,
        openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="none") as sdk,
    ):
        asking = asyncio.ensure_future(sdk.chat.completions.create(**body()))
        await soon(gate.reached.wait())
        asking.cancel()
        assert await soon(engine.aborted.get()) == engine.jobs[0].id
