"""LangChain: `ChatDeepSeek` returns the thinking; `ChatOpenAI` drops it.

pip install langchain-deepseek
"""

import os

from langchain_deepseek import ChatDeepSeek

model = ChatDeepSeek(
    api_base=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "unused"),
    model=os.environ.get("MODEL", "proctor-demo"),
    extra_body={"max_thinking_tokens": 64},
)
message = model.invoke("Start with 7, add 5, times 3, minus 4. What are the last two digits?")
print("thinking:", message.additional_kwargs["reasoning_content"])
print("answer:", message.content)
print("thinking tokens:", message.usage_metadata["output_token_details"]["reasoning"])
