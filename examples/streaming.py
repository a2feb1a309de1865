"""Streaming: the thinking and the answer arrive in separate fields, the thinking first."""

import os

from openai import OpenAI

DIM, RESET = "\033[2m", "\033[0m"

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "unused"),
)
stream = client.chat.completions.create(
    model=os.environ.get("MODEL", "proctor-demo"),
    messages=[
        {
            "role": "user",
            "content": "Start with 7, add 5, times 3, minus 4. What are the last two digits?",
        }
    ],
    extra_body={"max_thinking_tokens": 64},
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    for choice in chunk.choices:
        # A field that the SDK's types lack.
        if thinking := getattr(choice.delta, "reasoning_content", None):
            print(f"{DIM}{thinking}{RESET}", end="", flush=True)
        if choice.delta.content:
            print(choice.delta.content, end="", flush=True)
    if chunk.usage and (details := chunk.usage.completion_tokens_details):  # the last chunk
        print("\nthinking tokens:", details.reasoning_tokens)
