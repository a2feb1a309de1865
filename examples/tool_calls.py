"""Tools: one turn with a tool call, within one thinking budget.

Requires `--tool-call-parser` and a model that calls tools, which the demo model does not.
"""

import json
import os
from typing import Any

from openai import OpenAI
from openai.types.chat import ChatCompletionFunctionToolParam

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "unused"),
)
model = os.environ.get("MODEL", "qwen3-8b")
tools: list[ChatCompletionFunctionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the temperature in a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


def get_weather(city: str) -> str:
    """Return the temperature in a city."""
    return f"21 degrees in {city}"


messages: list[Any] = [{"role": "user", "content": "Weather in Paris?"}]
while True:
    # All thinking of the turn counts against one budget: send it back with the messages.
    completion = client.chat.completions.create(
        model=model, messages=messages, tools=tools, extra_body={"max_thinking_tokens": 512}
    )
    message = completion.choices[0].message
    messages.append(message.model_dump(exclude_none=True))
    calls = [call for call in message.tool_calls or [] if call.type == "function"]
    if not calls:
        break
    for call in calls:
        result = get_weather(**json.loads(call.function.arguments))
        print(f"{call.function.name}({call.function.arguments}) = {result}")
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
print("answer:", message.content)
