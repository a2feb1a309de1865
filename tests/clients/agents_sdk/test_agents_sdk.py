"""The OpenAI Agents SDK, by its models for both of OpenAI's APIs.

Run in its own environment by `tests/clients/test_isolated_clients.py`, which gives the addresses.
"""

import os
from typing import Any

import openai
import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from openai.types.shared import Reasoning
from pydantic import BaseModel, Field

CHAIN = "Start with 73, add 9, subtract 2, times 4, add 7. What are the last two digits?"
THOUGHT = "Let me see."
BUDGET = len(THOUGHT) + 4
"""The thinking tokens of a turn with the scripted engine, where a token is a byte."""

set_tracing_disabled(True)
both_models = pytest.mark.parametrize("model", [OpenAIResponsesModel, OpenAIChatCompletionsModel])


class Result(BaseModel):
    """The schema of the answer."""

    digits: int = Field(ge=0, le=99)
    sure: bool


@function_tool
def get_weather(city: str) -> str:
    """Tell the weather."""
    return f"21 in {city}"


def client(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def scripted(model: Any, name: str = "scripted", **settings: Any) -> Agent:
    """Return an agent on an engine that follows `tests/clients/scripted_servers.py`."""
    return Agent(
        name="weather",
        model=model(name, client(os.environ["SCRIPTED_URL"])),
        tools=[get_weather],
        model_settings=ModelSettings(**settings),
    )


def types_of(result: Any) -> list[str]:
    return [type(item).__name__ for item in result.new_items]


@both_models
async def test_a_tool_loop(model: Any) -> None:
    agent = scripted(model, reasoning=Reasoning(effort="low", summary="auto"))
    whole = await Runner.run(agent, "Weather in two cities?")
    streamed = Runner.run_streamed(agent, "Weather in two cities?")
    types = {
        event.data.type
        async for event in streamed.stream_events()
        if event.type == "raw_response_event"
    }

    for result in (whole, streamed):
        assert result.final_output == "It is 21 degrees."
        assert types_of(result) == [
            "ReasoningItem",
            *["ToolCallItem"] * 2,
            *["ToolCallOutputItem"] * 2,
            "ReasoningItem",
            "MessageOutputItem",
        ]
    assert {"response.reasoning_summary_text.delta", "response.output_text.delta"} <= types


@both_models
async def test_items_can_be_sent_back(model: Any) -> None:
    agent = scripted(model)
    first = await Runner.run(agent, "Weather in two cities?")
    question = {"role": "user", "content": "Weather in Paris?"}

    second = await Runner.run(agent, [*first.to_input_list(), question])

    assert second.final_output == "It is 21 degrees."


async def test_a_turn_has_one_budget() -> None:
    agent = scripted(OpenAIResponsesModel, extra_body={"max_thinking_tokens": BUDGET})

    result = await Runner.run(agent, "Weather in Paris?")

    entries = result.context_wrapper.usage.request_usage_entries
    spent = [entry.output_tokens_details.reasoning_tokens for entry in entries]
    assert spent[0] == len(THOUGHT)
    assert sum(spent) == BUDGET


@both_models
async def test_structured_output(model: Any) -> None:
    agent = Agent(
        name="sums",
        model=model("proctor-demo", client(os.environ["REAL_URL"])),
        output_type=Result,
        model_settings=ModelSettings(extra_body={"max_thinking_tokens": 40}, temperature=0),
    )

    result = await Runner.run(agent, CHAIN)

    assert isinstance(result.final_output, Result)


@both_models
async def test_errors(model: Any) -> None:
    with pytest.raises(openai.NotFoundError):
        await Runner.run(scripted(model, "another"), "hi")
    with pytest.raises(openai.BadRequestError, match="temperature"):
        await Runner.run(scripted(model, temperature=3), "hi")
