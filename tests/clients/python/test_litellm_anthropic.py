"""LiteLLM, by its provider for Anthropic's API."""

from typing import Any

import litellm
import pytest
from conftest import CHAIN, THINKS, Server

THINKING = {"type": "enabled", "budget_tokens": THINKS, "landing": "hard"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def request(server: Server, text: str = CHAIN, **fields: Any) -> dict[str, Any]:
    return {
        "model": f"anthropic/{server.model}",
        "api_base": server.url.removesuffix("/v1"),
        "api_key": "none",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 400,
        "thinking": THINKING,
        # It does not know that the model thinks.
        "allowed_openai_params": ["thinking"],
        **fields,
    }


def test_a_complete_answer(real: Server) -> None:
    response = litellm.completion(**request(real, temperature=0))

    (choice,) = response.choices
    assert choice.message.reasoning_content.startswith("a:")
    assert choice.message.thinking_blocks[0]["signature"]
    assert choice.message.content.startswith("The answer is")


async def test_a_stream_equals_the_complete_answer(real: Server) -> None:
    whole = (await litellm.acompletion(**request(real, temperature=0))).choices[0]
    stream = await litellm.acompletion(**request(real, temperature=0), stream=True)
    chunks = [chunk async for chunk in stream]
    built = litellm.stream_chunk_builder(chunks).choices[0]

    assert len(chunks) > 5
    assert built.message.reasoning_content == whole.message.reasoning_content
    assert built.message.content == whole.message.content


def test_tools(scripted: Server) -> None:
    fields = request(scripted, "Weather in two cities?", tools=[WEATHER])
    whole = litellm.completion(**fields)
    streamed = litellm.stream_chunk_builder(list(litellm.completion(**fields, stream=True)))

    for response in (whole, streamed):
        (choice,) = response.choices
        cities = [call.function.arguments for call in choice.message.tool_calls]
        assert cities == ['{"city": "Paris"}', '{"city": "Oslo"}']
        assert choice.message.reasoning_content == "Let me see."
        assert choice.finish_reason == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
def test_messages_can_be_sent_back(stream: bool, scripted: Server) -> None:
    messages: list[Any] = [{"role": "user", "content": "Weather in two cities?"}]

    def send() -> Any:
        fields = request(scripted, tools=[WEATHER], stream=stream) | {"messages": messages}
        response = litellm.completion(**fields)
        built = litellm.stream_chunk_builder(list(response)) if stream else response
        messages.append(built.choices[0].message)
        return messages[-1]

    ids = [call.id for call in send().tool_calls]
    messages.extend({"role": "tool", "tool_call_id": each, "content": "21"} for each in ids)

    assert send().content == "It is 21 degrees."


def test_errors(scripted: Server) -> None:
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(**request(scripted, temperature=3))
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**request(Server(scripted.url, "another")))
