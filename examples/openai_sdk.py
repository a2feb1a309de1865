"""The OpenAI SDK: a thinking budget for one request, and the outcome."""

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
    # Fields that OpenAI's API does not have are sent in `extra_body` …
    extra_body={"max_thinking_tokens": 256, "thinking": {"continuations": 1}},
)
choice = completion.choices[0]
# … and are attributes of the response that the SDK's types lack.
thinking = getattr(choice, "thinking", {})
print("thinking:", getattr(choice.message, "reasoning_content", None))
print("answer:", choice.message.content)
print("thinking ended:", thinking["end_reason"])
print("thinking tokens:", thinking["tokens"])
