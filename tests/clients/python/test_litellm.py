"""LiteLLM, by both of its providers for OpenAI-compatible servers."""

from typing import Any

import litellm
import pytest
from conftest import BUDGET, CHAIN, THINKS, Server
from pydantic import BaseModel, Field

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


class Result(BaseModel):
    """The schema of the answer."""

    digits: int = Field(ge=0, le=99)
    sure: bool


def request(provider: str, server: Server, text: str = CHAIN, **fields: Any) -> dict[str, Any]:
    return {
        "model": f"{provider}/{server.model}",
        "api_base": server.url,
        "api_key": "none",
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        **fields,
    }


both_providers = pytest.mark.parametrize("provider", ["hosted_vllm", "openai"])


@both_providers
def test_a_complete_answer(provider: str, real: Server) -> None:
    response = litellm.completion(**request(provider, real, extra_body=BUDGET))

    (choice,) = response.choices
    assert choice.message.reasoning_content.startswith("a:")
    assert choice.message.content.startswith("The answer is")
    assert choice.provider_specific_fields["thinking"]["tokens"] == THINKS
    assert response.usage.completion_tokens_details.reasoning_tokens == THINKS


@both_providers
async def test_a_stream_equals_the_complete_answer(provider: str, real: Server) -> None:
    whole = (await litellm.acompletion(**request(provider, real, extra_body=BUDGET))).choices[0]
    stream = await litellm.acompletion(
        **request(provider, real, extra_body=BUDGET),
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    built = litellm.stream_chunk_builder(chunks)

    assert len(chunks) > 5
    assert built.choices[0].message.reasoning_content == whole.message.reasoning_content
    assert built.choices[0].message.content == whole.message.content
    assert built.usage.completion_tokens_details.reasoning_tokens == THINKS


@both_providers
def test_an_effort_selects_a_tier(provider: str, real: Server) -> None:
    (choice,) = litellm.completion(**request(provider, real, reasoning_effort="low")).choices

    assert choice.provider_specific_fields["thinking"]["tier"] == "low"


@both_providers
def test_structured_output(provider: str, real: Server) -> None:
    response = litellm.completion(
        **request(provider, real, extra_body=BUDGET, response_format=Result)
    )

    assert Result.model_validate_json(response.choices[0].message.content)
    assert response.choices[0].message.reasoning_content.startswith("a:")


@both_providers
def test_tools(provider: str, scripted: Server) -> None:
    fields = request(provider, scripted, "Weather in two cities?", tools=[WEATHER])
    whole = litellm.completion(**fields)
    streamed = litellm.stream_chunk_builder(list(litellm.completion(**fields, stream=True)))

    for response in (whole, streamed):
        (choice,) = response.choices
        cities = [call.function.arguments for call in choice.message.tool_calls]
        assert cities == ['{"city": "Paris"}', '{"city": "Oslo"}']
        assert choice.message.reasoning_content == "Let me see."
        assert choice.finish_reason == "tool_calls"


@both_providers
@pytest.mark.parametrize("stream", [False, True])
def test_messages_can_be_sent_back(provider: str, stream: bool, scripted: Server) -> None:
    messages: list[Any] = []
    tools = [WEATHER | {"cache_control": {"type": "ephemeral"}}]

    def send() -> Any:
        fields = request(provider, scripted, tools=tools, stream=stream) | {"messages": messages}
        response = litellm.completion(**fields)
        built = litellm.stream_chunk_builder(list(response)) if stream else response
        messages.append(built.choices[0].message)
        return messages[-1]

    for text in ("Weather in two cities?", "Weather in Paris?"):
        part = {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
        messages.append({"role": "user", "content": [part]})
        ids = [call.id for call in send().tool_calls]
        messages += [{"role": "tool", "tool_call_id": each, "content": "21"} for each in ids]
        assert send().content == "It is 21 degrees."


@both_providers
def test_errors(provider: str, scripted: Server) -> None:
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(**request(provider, scripted) | {"temperature": 3})
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**request(provider, Server(scripted.url, "another")))
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**request(provider, scripted, "x" * 9000))
