"""Budgets on a real vocabulary, counted again from the bytes of the tokens."""

from random import Random
from typing import Any

import pytest

from tests.engine.client import assert_budget_kept, random_request
from tests.engine.gateway import Gateway
from tests.engine.real_model.client import (
    END,
    QUESTIONS,
    START,
    conversation,
    request_for,
    send_all,
    thinking_count,
)

pytestmark = pytest.mark.engine


def real_request(gateway: Gateway, rng: Random) -> dict[str, Any]:
    """Return a request with a random budget; most conversations show how to think."""
    question = rng.choice(QUESTIONS)
    shown = (
        conversation(question) if rng.random() < 0.8 else [{"role": "user", "content": question}]
    )
    request = random_request(gateway, rng, most=60)
    return {**request, "messages": shown, "max_tokens": 160}


async def test_random_requests_think_within_their_budgets(real_gateway: Gateway) -> None:
    rng = Random(49_152)
    requests = [real_request(real_gateway, rng) for _ in range(32)]
    for request, answer in zip(requests, await send_all(real_gateway, requests), strict=True):
        count = thinking_count(real_gateway, f"{answer['id']}-0")
        assert_budget_kept(real_gateway, request, answer, count)
        message = answer["choices"][0]["message"]
        assert START not in message["content"]
        assert END not in message["content"] + (message["reasoning_content"] or "")


@pytest.mark.parametrize("temperature", [0, 0.8, 1.5])
async def test_without_thinking_no_spelling_of_the_marker_opens_a_block(
    real_gateway: Gateway, temperature: float
) -> None:
    requests = [
        request_for(
            real_gateway,
            question,
            max_thinking_tokens=0,
            temperature=temperature,
            seed=seed,
            max_tokens=80,
        )
        for seed, question in enumerate(QUESTIONS)
    ]
    for answer in await send_all(real_gateway, requests):
        (choice,) = answer["choices"]
        assert choice["thinking"]["tokens"] == 0
        assert not choice["message"]["reasoning_content"]
        assert START not in choice["message"]["content"]
        assert END not in choice["message"]["content"]
        assert thinking_count(real_gateway, f"{answer['id']}-0") == 0
