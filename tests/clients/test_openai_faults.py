"""The OpenAI SDK for Python: errors, retries, timeouts, and tool calls by the model's choice."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from proctor.server.engines.fake import FakeEngine, Script
from tests.clients.scripted_servers import THOUGHT, busy_server, loading_server
from tests.server.harness import Gate, body, running_server, with_timeout
from tests.waiting import PATIENCE

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
TOO_LONG = [{"role": "user", "content": "x" * 5000}]
OVERSIZED = "x" * 5 * 2**20


class GetWeather(BaseModel):
    """Tell the weather."""

    city: str


class Answer(BaseModel):
    """The schema of the answer."""

    degrees: int


def client(url: str, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", **options)


def request(*turns: Any, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": turns[0]}, *turns[1:]]
    return {"model": "scripted", "messages": messages, **fields}


@pytest.fixture
async def sdk(scripted_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client(scripted_url, max_retries=0) as opened:
        yield opened


@pytest.mark.parametrize(
    ("fields", "error_class", "param", "code"),
    [
        ({"temperature": 3}, openai.BadRequestError, "temperature", None),
        ({"extra_body": {"budget": 1}}, openai.BadRequestError, "budget", None),
        (
            {"extra_body": {"min_thinking_tokens": 9, "max_thinking_tokens": 8}},
            openai.BadRequestError,
            "min_thinking_tokens",
            None,
        ),
        ({"messages": TOO_LONG}, openai.BadRequestError, "messages", "context_length_exceeded"),
        ({"model": "another"}, openai.NotFoundError, "model", "model_not_found"),
        (
            {"extra_headers": {"origin": "https://example.com"}},
            openai.PermissionDeniedError,
            None,
            "origin_not_allowed",
        ),
        ({"extra_body": {"x": OVERSIZED}}, openai.APIStatusError, None, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors(
    sdk: openai.AsyncOpenAI,
    fields: dict[str, Any],
    error_class: type[openai.APIStatusError],
    param: str | None,
    code: str | None,
    stream: bool,
) -> None:
    with pytest.raises(error_class) as caught:
        await sdk.chat.completions.create(**request("hi") | fields, stream=stream)

    assert type(caught.value) is error_class
    assert (caught.value.param, caught.value.code) == (param, code)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["message"] in str(caught.value)
    assert caught.value.request_id


async def test_an_error_in_a_stream() -> None:
    async with running_server(FakeEngine(die_after=2)) as url, client(url) as sdk:
        stream = await sdk.chat.completions.create(**body(), stream=True)
        with pytest.raises(openai.APIError, match="the engine died"):
            async for _ in stream:
                pass


async def test_an_error_in_an_accumulated_stream() -> None:
    async with (
        running_server(FakeEngine(die_after=2)) as url,
        client(url) as sdk,
        sdk.chat.completions.stream(**body()) as stream,
    ):
        with pytest.raises(openai.APIError, match="the engine died"):
            await stream.get_final_completion()


async def test_a_deadline(sdk: openai.AsyncOpenAI) -> None:
    short = request("hold", extra_headers={"x-request-timeout": "0.2"})

    with pytest.raises(openai.InternalServerError) as caught:
        await sdk.chat.completions.create(**short)
    assert (caught.value.status_code, caught.value.code) == (504, "timeout")
    with pytest.raises(openai.APIError, match=re.escape("within 0.2 s")):
        async for _ in await sdk.chat.completions.create(**short, stream=True):
            pass


async def test_an_unreachable_server() -> None:
    async with running_server(FakeEngine()) as url:
        pass
    async with client(url, max_retries=0) as sdk:
        with pytest.raises(openai.APIConnectionError):
            await sdk.chat.completions.create(**body())


@pytest.mark.parametrize(
    ("faulty_server", "error_class", "status"),
    [(busy_server, openai.RateLimitError, 429), (loading_server, openai.InternalServerError, 503)],
)
async def test_429_and_503_are_retried(
    faulty_server: Callable[[], AbstractAsyncContextManager[str]],
    error_class: type[openai.APIStatusError],
    status: int,
) -> None:
    async with faulty_server() as url, client(url) as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(**body())
        assert raw.parse().choices[0].message.content == "42"
        assert raw.retries_taken >= 1
    async with faulty_server() as url, client(url, max_retries=0) as sdk:
        with pytest.raises(error_class) as caught:
            await sdk.chat.completions.create(**body())
        assert caught.value.status_code == status
        assert int(caught.value.response.headers["retry-after"]) >= 1


async def test_a_tool_loop(sdk: openai.AsyncOpenAI) -> None:
    question = "Weather in two cities?"
    first = (await sdk.chat.completions.create(**request(question, tools=[WEATHER]))).choices[0]
    calls = first.message.tool_calls or []
    results = [{"role": "tool", "tool_call_id": call.id, "content": "21"} for call in calls]
    conversation = request(question, first.message, *results, tools=[WEATHER])
    last = (await sdk.chat.completions.create(**conversation)).choices[0]

    assert first.finish_reason == "tool_calls"
    arguments = [json.loads(call.function.arguments) for call in calls if call.type == "function"]
    assert arguments == [{"city": "Paris"}, {"city": "Oslo"}]
    assert getattr(first.message, "reasoning_content") == THOUGHT  # noqa: B009
    assert (last.message.content, last.finish_reason) == ("It is 21 degrees.", "stop")


@pytest.mark.parametrize("helper", ["create", "parse", "stream"])
async def test_messages_of_helpers_can_be_sent_back(sdk: openai.AsyncOpenAI, helper: str) -> None:
    """The helpers add members to the message and its calls; two rounds of a tool loop."""
    tools = [openai.pydantic_function_tool(GetWeather, name="get_weather")]
    messages: list[Any] = []
    for text in ("Weather in two cities?", "Weather in Paris?"):
        messages.append({"role": "user", "content": text})
        called = await first_choice(sdk, helper, messages, tools)
        calls = called.message.tool_calls
        assert calls
        messages.append(called.message)
        messages += [
            {"role": "tool", "tool_call_id": call.id, "content": "21", "is_error": False}
            for call in calls
        ]
        last = await first_choice(sdk, helper, messages, tools)
        assert last.message.content == "It is 21 degrees."
        messages.append(last.message)
        if helper != "create":
            assert isinstance(calls[0].function.parsed_arguments, GetWeather)
    raw = await sdk.chat.completions.with_raw_response.create(
        **request("x") | {"messages": messages}
    )

    listed = raw.headers["x-ignored-fields"]
    added = {"create": "is_error", "parse": "parsed_arguments", "stream": "tool_calls[0].index"}
    assert added[helper] in listed


async def first_choice(
    sdk: openai.AsyncOpenAI, helper: str, messages: list[Any], tools: list[Any]
) -> Any:
    """Return the first choice, as one of the SDK's helpers parses it."""
    fields: Any = request("x", tools=tools) | {"messages": messages}
    completions = sdk.chat.completions
    if helper == "stream":
        async with completions.stream(**fields) as stream:
            return (await stream.get_final_completion()).choices[0]
    if helper == "parse":
        return (await completions.parse(**fields)).choices[0]
    return (await completions.create(**fields)).choices[0]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the SDK's own, of `parsed`
async def test_a_parsed_answer_can_be_sent_back(sdk: openai.AsyncOpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "As JSON, please."}]
    for _ in range(2):
        fields: Any = request("x") | {"messages": messages}
        parsed = (await sdk.chat.completions.parse(**fields, response_format=Answer)).choices[0]
        assert parsed.message.parsed == Answer(degrees=21)
        messages += [parsed.message, {"role": "user", "content": "As JSON, again."}]


@pytest.mark.parametrize("text", ["hi", "Weather in Paris?"])
async def test_the_loops_of_deepseeks_documentation(sdk: openai.AsyncOpenAI, text: str) -> None:
    """They read the fields of the thinking without checking that they exist."""
    fields: Any = request(text)
    for style in ("reasoning_content", "tags", "hidden"):
        body = {"reasoning_format": style}
        thinking = content = ""
        async for chunk in await sdk.chat.completions.create(
            **fields, stream=True, extra_body=body
        ):
            delta: Any = chunk.choices[0].delta
            if delta.reasoning_content:
                thinking += delta.reasoning_content
            else:
                content += delta.content
        whole = (await sdk.chat.completions.create(**fields, extra_body=body)).choices[0].message
        assert content == whole.content
        assert (thinking or None) == whole.reasoning_content
        assert bool(thinking) is (style == "reasoning_content")


async def test_reasoning_content_is_null_without_thinking() -> None:
    async with running_server(FakeEngine(Script((), "42"), opens=False)) as url, client(url) as sdk:
        message: Any = (await sdk.chat.completions.create(**body())).choices[0].message
        stream: Any = await sdk.chat.completions.create(**body(), stream=True)
        assert message.reasoning_content is None
        assert {chunk.choices[0].delta.reasoning_content async for chunk in stream} == {None}


async def test_tools_in_a_stream(sdk: openai.AsyncOpenAI) -> None:
    streaming = sdk.chat.completions.stream(**request("Weather in two cities?", tools=[WEATHER]))
    async with streaming as stream:
        final = (await stream.get_final_completion()).choices[0]

    arguments = [json.loads(call.function.arguments) for call in final.message.tool_calls or []]
    assert arguments == [{"city": "Paris"}, {"city": "Oslo"}]
    assert getattr(final.message, "reasoning_content") == THOUGHT  # noqa: B009
    assert final.finish_reason == "tool_calls"


async def test_cancelling_aborts() -> None:
    gate = Gate(3)
    engine = FakeEngine(before_token=gate)

    async with running_server(engine) as url, client(url) as sdk:
        completion = asyncio.ensure_future(sdk.chat.completions.create(**body()))
        await with_timeout(gate.reached.wait())
        completion.cancel()
        assert await with_timeout(engine.aborted.get()) == engine.jobs[0].id


async def test_a_timeout_aborts() -> None:
    gate = Gate(3)
    engine = FakeEngine(before_token=gate)

    async with running_server(engine) as url, client(url, max_retries=0) as sdk:
        while not gate.reached.is_set():
            with pytest.raises(openai.APITimeoutError):
                await sdk.chat.completions.create(
                    **body(), timeout=openai.Timeout(PATIENCE, read=0.3)
                )
        assert await with_timeout(engine.aborted.get()) in {job.id for job in engine.jobs}
