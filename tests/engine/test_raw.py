"""Raw prompts, and what tokens they are, on the real engine."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.engine.asking import ask, body
from tests.engine.served import Served
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

PROMPT = "Start with 7, add 5, times 3, minus 4. What are the last two digits?"
END = "</think>"


@pytest.fixture
async def http(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served.url, timeout=PATIENCE) as client:
        yield client


async def post(http: httpx.AsyncClient, path: str, **fields: Any) -> Any:
    response = await http.post(path, json=fields)
    assert response.status_code == 200, response.text
    return response.json()


async def tokens(http: httpx.AsyncClient, **fields: Any) -> list[int]:
    """The tokens of the chat's prompt."""
    messages = [{"role": "user", "content": PROMPT}]
    told = await post(http, "/tokenize", messages=messages, **fields)
    assert told["count"] == len(told["tokens"])
    found: list[int] = told["tokens"]
    return found


async def complete(served: Served, http: httpx.AsyncClient, prompt: Any, **fields: Any) -> Any:
    model = served.engine.model.name
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
async def test_the_same_as_a_chat(
    served: Served, http: httpx.AsyncClient, budget: dict[str, Any]
) -> None:
    asked = {"max_tokens": 900, "temperature": 0, **budget}
    chat = await ask(http, body(served, PROMPT, **asked))

    raw = await complete(served, http, await tokens(http), **budget)

    assert raw["usage"] == chat["usage"]
    for ours, theirs in zip(raw["choices"], chat["choices"], strict=True):
        message = theirs["message"]
        thought, _, answer = ours["text"].partition(END)
        assert thought == message["reasoning_content"]
        assert answer.lstrip("\n") == message["content"]
        assert ours["thinking"] == theirs["thinking"]
        assert ours["finish_reason"] == theirs["finish_reason"]


async def test_a_text_is_the_same_as_its_tokens(served: Served, http: httpx.AsyncClient) -> None:
    ids = await tokens(http)
    text = (await post(http, "/detokenize", tokens=ids))["prompt"]

    assert (await post(http, "/tokenize", prompt=text))["tokens"] == ids
    by_text = await complete(served, http, text, max_thinking_tokens=9)
    by_ids = await complete(served, http, ids, max_thinking_tokens=9)
    assert by_text["choices"] == by_ids["choices"]
    assert by_text["choices"][0]["thinking"]["tokens"] == 9


async def test_streamed_text_is_the_whole_text(served: Served, http: httpx.AsyncClient) -> None:
    prompt = await tokens(http)
    whole = await complete(served, http, prompt, min_thinking_tokens=50)
    fields = {"max_tokens": 900, "temperature": 0, "min_thinking_tokens": 50, "stream": True}
    asked = {"model": served.engine.model.name, "prompt": prompt, **fields}

    text = ""
    async with http.stream("POST", "/v1/completions", json=asked) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                text += httpx.Response(200, text=line[6:]).json()["choices"][0]["text"]

    assert text == whole["choices"][0]["text"]


async def test_going_on_with_a_thinking(served: Served, http: httpx.AsyncClient) -> None:
    """A prompt may hold the beginning of the thinking; the budget is of what follows."""
    prompt = await tokens(http)
    first = await complete(served, http, prompt, max_tokens=8, max_thinking_tokens=-1)
    begun = (await post(http, "/detokenize", tokens=prompt))["prompt"] + "a:07"

    rest = await complete(served, http, begun, max_thinking_tokens=6)

    assert first["usage"]["completion_tokens"] <= 8
    thought, end, answer = rest["choices"][0]["text"].partition(END)
    assert rest["choices"][0]["thinking"]["tokens"] == 6
    assert rest["choices"][0]["thinking"]["end_reason"] == "max"
    assert (thought, end) != ("", "")
    assert answer.strip()


async def test_a_prompt_that_opens_no_thinking(served: Served, http: httpx.AsyncClient) -> None:
    prompt = await tokens(http, chat_template_kwargs={"enable_thinking": False})

    choice = (await complete(served, http, prompt))["choices"][0]

    assert choice["thinking"]["end_reason"] == "disabled"
    assert END not in choice["text"]
    assert choice["text"].strip()


async def test_tokens_beyond_the_vocabulary(served: Served, http: httpx.AsyncClient) -> None:
    size = served.engine.codec.vocabulary_size
    model = served.engine.model.name

    last = await post(http, "/detokenize", tokens=[size - 1])
    for path, fields in (
        ("/detokenize", {"tokens": [0, size]}),
        ("/v1/completions", {"model": model, "prompt": [0, size]}),
    ):
        refused = await http.post(path, json=fields)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] in ("tokens[1]", "prompt[1]")

    assert last["prompt"]
    assert (await complete(served, http, [size - 1], max_tokens=1))["usage"]["prompt_tokens"] == 1
