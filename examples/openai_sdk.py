"""The OpenAI SDK: a budget for one request, and what it says about the thinking."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "unused"),
)
completion = client.chat.completions.create(
    model=os.environ.get("MODEL", "proctor-demo"),
    messages=[
        {
            "role": "user",
            "content": "Start with 7, add 5, times 3, minus 4. What are the last two digits?",
        }
    ],
    # Fields that OpenAI's API does not have go into `extra_body`.
    extra_body={"max_thinking_tokens": 64, "thinking": {"continuations": 1}},
)
choice = completion.choices[0]
print("thinking:", choice.message.reasoning_content)
print("answer:", choice.message.content)
print("thinking ended:", choice.thinking["end_reason"])
print("thinking tokens:", completion.usage.completion_tokens_details.reasoning_tokens)
