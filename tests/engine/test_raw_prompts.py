"""Raw prompts, as text and as token ids, on the real engine."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.engine.client import ask, body
from tests.engine.gateway import Gateway
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

PROMPT = "Start with 7, add 5, times 3, minus 4. What are the last two digits?"
END = "</think>"


@pytest.fixture
async def http(vllm_gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=PATIENCE) as client:
        yield client


async def post(http: httpx.AsyncClient, path: str, **fields: Any) -> Any:
    response = await http.post(path, json=fields)
    assert response.status_code == 200, response.text
    return response.json()


async def rendered_chat(http: httpx.AsyncClient, **fields: Any) -> list[int]:
    """Return the token ids of the chat, rendered by the template."""
    messages = [{"role": "user", "content": PROMPT}]
    response = await post(http, "/tokenize", messages=messages, **fields)
    assert response["count"] == len(response["tokens"])
    ids: list[int] = response["tokens"]
    return ids


async def complete(gateway: Gateway, http: httpx.AsyncClient, prompt: Any, **fields: Any) -> Any:
    model = gateway.engine.model.name
    fields = {"max_tokens": 900, "temperature": 0, **fields}
    return await post(http, "/v1/completions", model=model, prompt=prompt, **fields)


@pytest.mark.parametrize(
    "budget",
    [
        {},
        {"max_thinking_tokens": 7},
        {"max_thinking_tokens": 30, "thinking": {"wrap_up_text": "So"}},
        {"min_thinking_tokens": 60},
        {"min_thinking_tokens": 60, "temperature": 1, "seed": 5, "n": 2},
    ],
)
async def test_a_rendered_chat_gives_the_same_as_the_chat(
    vllm_gateway: Gateway, http: httpx.AsyncClient, budget: dict[str, Any]
) -> None:
    fields = {"max_tokens": 900, "temperature": 0, **budget}
    chat = await ask(http, body(vllm_gateway, PROMPT, **fields))

    raw = await complete(vllm_gateway, http, await rendered_chat(http), **budget)

    assert raw["usage"] == chat["usage"]
    for choice, chat_choice in zip(raw["choices"], chat["choices"], strict=True):
        message = chat_choice["message"]
        thinking, _, answer = choice["text"].partition(END)
        assert thinking == message["reasoning_content"]
        assert answer.lstrip("\n") == message["content"]
        assert choice["thinking"] == chat_choice["thinking"]
        assert choice["finish_reason"] == chat_choice["finish_reason"]


async def test_a_text_and_its_token_ids_give_the_same(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    ids = await rendered_chat(http)
    text = (await post(http, "/detokenize", tokens=ids))["prompt"]

    assert (await post(http, "/tokenize", prompt=text))["tokens"] == ids
    by_text = await complete(vllm_gateway, http, text, max_thinking_tokens=9)
    by_ids = await complete(vllm_gateway, http, ids, max_thinking_tokens=9)
    assert by_text["choices"] == by_ids["choices"]
    assert by_text["choices"][0]["thinking"]["tokens"] == 9


async def test_a_stream_gives_the_same_text(vllm_gateway: Gateway, http: httpx.AsyncClient) -> None:
    prompt = await rendered_chat(http)
    whole = await complete(vllm_gateway, http, prompt, min_thinking_tokens=50)
    fields = {"max_tokens": 900, "temperature": 0, "min_thinking_tokens": 50, "stream": True}
    request = {"model": vllm_gateway.engine.model.name, "prompt": prompt, **fields}

    text = ""
    async with http.stream("POST", "/v1/completions", json=request) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                text += httpx.Response(200, text=line[6:]).json()["choices"][0]["text"]

    assert text == whole["choices"][0]["text"]


async def test_a_prompt_may_include_some_thinking(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    """The budget applies only to the thinking that follows the prompt."""
    prompt = await rendered_chat(http)
    first = await complete(vllm_gateway, http, prompt, max_tokens=8, max_thinking_tokens=-1)
    begun = (await post(http, "/detokenize", tokens=prompt))["prompt"] + "a:07"

    rest = await complete(vllm_gateway, http, begun, max_thinking_tokens=6)

    assert first["usage"]["completion_tokens"] <= 8
    thinking, end, answer = rest["choices"][0]["text"].partition(END)
    assert rest["choices"][0]["thinking"]["tokens"] == 6
    assert rest["choices"][0]["thinking"]["end_reason"] == "max"
    assert (thinking, end) != ("", "")
    assert answer.strip()


async def test_a_prompt_without_an_open_block_has_no_thinking(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    prompt = await rendered_chat(http, chat_template_kwargs={"enable_thinking": False})

    choice = (await complete(vllm_gateway, http, prompt))["choices"][0]

    assert choice["thinking"]["end_reason"] == "disabled"
    assert END not in choice["text"]
    assert choice["text"].strip()


async def test_ids_outside_the_vocabulary_are_refused(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    size = vllm_gateway.engine.codec.vocabulary_size
    model = vllm_gateway.engine.model.name

    last = await post(http, "/detokenize", tokens=[size - 1])
    for path, fields in (
        ("/detokenize", {"tokens": [0, size]}),
        ("/v1/completions", {"model": model, "prompt": [0, size]}),
    ):
        refused = await http.post(path, json=fields)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] in ("tokens[1]", "prompt[1]")

    assert last["prompt"]
    assert (await complete(vllm_gateway, http, [size - 1], max_tokens=1))["usage"][
        "prompt_tokens"
    ] == 1
