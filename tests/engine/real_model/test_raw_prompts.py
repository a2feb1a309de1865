"""Raw prompts, as text and as token ids, agree with chats on a real vocabulary."""

from typing import Any

import httpx
import pytest

from tests.engine.client import ask
from tests.engine.gateway import Gateway
from tests.engine.real_model.client import (
    END,
    QUESTIONS,
    START,
    conversation,
    request_for,
    thinking_count,
)
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

FIELDS = {"temperature": 0, "max_tokens": 100}


async def post(http: httpx.AsyncClient, path: str, **fields: Any) -> Any:
    response = await http.post(path, json=fields)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize(
    "budget",
    [
        {},
        {"max_thinking_tokens": 7},
        {"max_thinking_tokens": 20, "thinking": {"wrap_up_text": "So", "landing": "sentence"}},
    ],
)
@pytest.mark.parametrize("question", QUESTIONS[:3])
async def test_a_rendered_chat_gives_the_same_as_the_chat(
    real_gateway: Gateway, question: str, budget: dict[str, Any]
) -> None:
    async with httpx.AsyncClient(base_url=real_gateway.url, timeout=PATIENCE) as http:
        chat = await ask(http, request_for(real_gateway, question, **FIELDS | budget))
        raw = await complete_both(real_gateway, http, question, "", budget)

    assert raw["usage"] == chat["usage"]
    for choice, of_chat in zip(raw["choices"], chat["choices"], strict=True):
        assert choice["thinking"] == of_chat["thinking"]
        assert choice["finish_reason"] == of_chat["finish_reason"]
        message = of_chat["message"]
        thought = message["reasoning_content"]
        before, _, answer = choice["text"].rpartition(END)
        assert before.strip() == ("" if thought is None else START + thought)
        assert answer.lstrip("\n") == message["content"]


@pytest.mark.parametrize(
    "budget",
    [
        {"min_thinking_tokens": 40},
        {"min_thinking_tokens": 30, "temperature": 1, "seed": 5, "n": 2},
        {"max_thinking_tokens": 9, "min_thinking_tokens": 9},
        {"max_thinking_tokens": 0},
    ],
)
async def test_a_prompt_may_end_with_the_start_marker(
    real_gateway: Gateway, budget: dict[str, Any]
) -> None:
    async with httpx.AsyncClient(base_url=real_gateway.url, timeout=PATIENCE) as http:
        raw = await complete_both(real_gateway, http, QUESTIONS[0], START, budget)

    for choice in raw["choices"]:
        tokens = choice["thinking"]["tokens"]
        assert tokens == thinking_count(real_gateway, f"{raw['id']}-{choice['index']}")
        assert tokens >= budget.get("min_thinking_tokens", 0)
        assert tokens <= budget.get("max_thinking_tokens", tokens)


async def complete_both(
    gateway: Gateway, http: httpx.AsyncClient, question: str, opening: str, budget: dict[str, Any]
) -> Any:
    """Complete a rendered chat as token ids and as text; return the response, which is the same."""
    rendered = (await post(http, "/tokenize", messages=conversation(question)))["tokens"]
    text = (await post(http, "/detokenize", tokens=rendered))["prompt"]
    ids = [*rendered, *gateway.engine.codec.encode(opening)]
    fields = {"model": gateway.engine.model.name, **FIELDS, **budget}
    one = await post(http, "/v1/completions", prompt=text + opening, **fields)
    other = await post(http, "/v1/completions", prompt=ids, **fields)
    assert (one["choices"], one["usage"]) == (other["choices"], other["usage"])
    return other
