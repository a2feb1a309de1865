"""LangChain: `langchain-openai`, and `langchain-deepseek`, which exposes the reasoning."""

from collections.abc import Iterable
from functools import reduce
from operator import add
from typing import Any

import openai
import pytest
from conftest import BUDGET, CHAIN, THINKS, Server
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_deepseek import ChatDeepSeek
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field


class Result(BaseModel):
    """The schema of the answer."""

    digits: int = Field(ge=0, le=99)
    sure: bool


class Add(BaseModel):
    """Add two numbers."""

    a: int
    b: int


class get_weather(BaseModel):  # noqa: N801
    """Tell the weather."""

    city: str


def chat_openai(server: Server, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=server.url, api_key="none", model=server.model, **options)


def chat_deepseek(server: Server, **options: Any) -> ChatDeepSeek:
    return ChatDeepSeek(api_base=server.url, api_key="none", model=server.model, **options)


both_models = pytest.mark.parametrize("make", [chat_openai, chat_deepseek])


def joined(chunks: Iterable[AIMessageChunk]) -> AIMessageChunk:
    return reduce(add, chunks)


@both_models
def test_a_complete_answer(make: Any, real: Server) -> None:
    message = make(real, temperature=0, extra_body=BUDGET).invoke(CHAIN)

    assert message.content.startswith("The answer is")
    assert message.usage_metadata["output_token_details"]["reasoning"] == THINKS
    assert message.response_metadata["finish_reason"] == "stop"


@both_models
async def test_a_stream_equals_the_complete_answer(make: Any, real: Server) -> None:
    model = make(real, temperature=0, extra_body=BUDGET, stream_usage=True)
    whole = model.invoke(CHAIN)
    chunks = [chunk async for chunk in model.astream(CHAIN)]

    assert len(chunks) > 5
    assert joined(chunks).content == joined(model.stream(CHAIN)).content == whole.content
    assert joined(chunks).usage_metadata["output_token_details"]["reasoning"] == THINKS


def test_deepseek_exposes_the_reasoning(real: Server) -> None:
    model = chat_deepseek(real, temperature=0, extra_body=BUDGET)
    whole, streamed = model.invoke(CHAIN), joined(model.stream(CHAIN))

    reasoning = whole.additional_kwargs["reasoning_content"]
    assert reasoning.startswith("a:")
    assert streamed.additional_kwargs["reasoning_content"] == reasoning
    assert whole.content_blocks[0] == {"type": "reasoning", "reasoning": reasoning}


@both_models
def test_structured_output(make: Any, real: Server) -> None:
    model = make(real, temperature=0, extra_body=BUDGET)

    structured = model.with_structured_output(Result, method="json_schema", strict=True)

    assert isinstance(structured.invoke(CHAIN), Result)


@both_models
@pytest.mark.parametrize("choice", ["any", "Add"])
def test_tools_that_must_be_called(make: Any, choice: str, real: Server) -> None:
    model = make(real, temperature=0, extra_body=BUDGET)
    # By itself, the tiny model would neither match a schema nor stop.
    bound = model.bind_tools([Add], tool_choice=choice, strict=True, parallel_tool_calls=False)

    (call,) = bound.invoke(CHAIN).tool_calls

    assert call["name"] == "Add"
    assert Add.model_validate(call["args"])


@both_models
def test_a_tool_loop(make: Any, scripted: Server) -> None:
    model = make(scripted).bind_tools([get_weather])
    question = HumanMessage("Weather in two cities?")

    for message in (model.invoke([question]), joined(model.stream([question]))):
        assert [call["args"] for call in message.tool_calls] == [
            {"city": "Paris"},
            {"city": "Oslo"},
        ]
        results = [ToolMessage("21", tool_call_id=call["id"]) for call in message.tool_calls]
        last = model.invoke([question, message, *results])
        assert isinstance(last, AIMessage)
        assert last.content == "It is 21 degrees."


@both_models
def test_messages_can_be_sent_back(make: Any, scripted: Server) -> None:
    model = make(scripted).bind_tools([get_weather])
    conversation: list[Any] = []
    for text in ("Weather in two cities?", "Weather in Paris?"):
        conversation.append(HumanMessage([{"type": "text", "text": text, "cache_control": {}}]))
        conversation.append(joined(model.stream(conversation)))
        calls = conversation[-1].tool_calls
        conversation += [ToolMessage("21", tool_call_id=call["id"]) for call in calls]
        conversation.append(model.invoke(conversation))
        assert conversation[-1].content == "It is 21 degrees."


@both_models
def test_errors(make: Any, scripted: Server) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        make(scripted, temperature=3).invoke("hi")
    with pytest.raises(openai.NotFoundError):
        make(Server(scripted.url, "another")).invoke("hi")
    with pytest.raises(ContextOverflowError):
        make(scripted).invoke("x" * 9000)

    assert bad.value.param == "temperature"
