"""Sampling settings and log probabilities on the real engine."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.engine.client import CHAT, ask, body
from tests.engine.gateway import Gateway
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

PROMPT = "Start with 7, add 5, times 3. What are the last two digits?"


@pytest.fixture
async def http(vllm_gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=PATIENCE) as client:
        yield client


async def texts(gateway: Gateway, http: httpx.AsyncClient, **fields: Any) -> tuple[str, str]:
    answer = await ask(http, body(gateway, PROMPT, **fields))
    message = answer["choices"][0]["message"]
    return message["reasoning_content"], message["content"]


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-9}])
async def test_the_narrowest_sampling_is_greedy(
    vllm_gateway: Gateway, http: httpx.AsyncClient, narrow: dict[str, Any]
) -> None:
    for budget in ({}, {"min_thinking_tokens": 60}):
        greedy = await texts(vllm_gateway, http, temperature=0, **budget)
        assert await texts(vllm_gateway, http, temperature=1.5, **narrow, **budget) == greedy


async def test_a_bias_applies_within_the_budget(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    (token,) = vllm_gateway.engine.codec.encode("7")
    biased = await ask(
        http,
        body(
            vllm_gateway,
            PROMPT,
            logit_bias={str(token): 100},
            max_thinking_tokens=5,
            max_tokens=30,
            temperature=0,
        ),
    )

    (choice,) = biased["choices"]
    assert choice["thinking"]["tokens"] == 5
    assert set(choice["message"]["content"]) == {"7"}
    assert choice["finish_reason"] == "length"


async def test_penalties_change_the_text_within_the_budget(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    plain = await texts(vllm_gateway, http, temperature=0)
    for penalty in ("presence_penalty", "frequency_penalty"):
        answer = await ask(
            http,
            body(vllm_gateway, PROMPT, temperature=0, max_thinking_tokens=20, **{penalty: 2.0}),
        )
        (choice,) = answer["choices"]
        assert choice["message"]["reasoning_content"] != plain[0]
        assert choice["thinking"]["tokens"] <= 20


@pytest.mark.parametrize(
    "penalties",
    [
        {"presence_penalty": 0.5},
        {"frequency_penalty": 0.3},
        {"frequency_penalty": -0.2},
        {"repetition_penalty": 1.3},
        {"presence_penalty": 0.2, "frequency_penalty": 0.1, "repetition_penalty": 1.1},
    ],
)
async def test_an_unreached_minimum_does_not_change_penalties(
    vllm_gateway: Gateway, http: httpx.AsyncClient, penalties: dict[str, float]
) -> None:
    fields = {"temperature": 0, "max_thinking_tokens": 300, "max_tokens": 500, **penalties}
    (plain,) = (await ask(http, body(vllm_gateway, PROMPT, **fields)))["choices"]
    for minimum in (1, plain["thinking"]["tokens"]):
        request = body(vllm_gateway, PROMPT, min_thinking_tokens=minimum, **fields)
        (choice,) = (await ask(http, request))["choices"]
        assert choice["thinking"]["min_tokens"] == minimum > 0
        assert choice["message"] == plain["message"]


async def test_penalties_and_a_minimum_apply_together(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    fields = {"min_thinking_tokens": 120, "frequency_penalty": 0.3, "seed": 5, "temperature": 1.0}
    first, second = [await ask(http, body(vllm_gateway, PROMPT, **fields)) for _ in range(2)]
    thinking = first["choices"][0]["thinking"]
    assert thinking["tokens"] >= 120 or thinking["end_reason"] == "loop"
    assert first["choices"][0]["message"] == second["choices"][0]["message"]


@pytest.mark.parametrize(
    "text", ["hello", "Prove that there are infinitely many primes of the form 4k+3."]
)
@pytest.mark.parametrize("response_format", [None, {"type": "json_object"}])
async def test_penalties_work_with_routed_budgets(
    vllm_gateway: Gateway,
    http: httpx.AsyncClient,
    text: str,
    response_format: dict[str, Any] | None,
) -> None:
    fields = {} if response_format is None else {"response_format": response_format}
    request = body(
        vllm_gateway, text, budget_tier="auto", frequency_penalty=0.3, max_tokens=400, **fields
    )
    response = await http.post(CHAT, json=request)
    assert response.status_code == 200, response.text


async def test_logprobs_are_those_of_the_chosen_tokens(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    request = body(
        vllm_gateway,
        PROMPT,
        temperature=0,
        logprobs=True,
        top_logprobs=4,
        thinking={"logprobs": True, "continuations": 1},
    )
    choice = (await ask(http, request))["choices"][0]

    logprobs = choice["logprobs"]
    for key, text in (("content", "content"), ("reasoning_content", "reasoning_content")):
        entries = logprobs[key]
        joined = b"".join(bytes(entry["bytes"]) for entry in entries).decode()
        assert joined.strip("\n") == choice["message"][text].strip("\n")
        for entry in entries:
            assert len(entry["top_logprobs"]) == 4
            ranked = [other["logprob"] for other in entry["top_logprobs"]]
            assert ranked == sorted(ranked, reverse=True)
            assert entry["logprob"] <= ranked[0] <= 0
    greedy = [s for s in logprobs["content"] if s["logprob"] == s["top_logprobs"][0]["logprob"]]
    assert len(greedy) == len(logprobs["content"])
    # Forced tokens have the log probability that the model gives them.
    assert any(
        entry["logprob"] < entry["top_logprobs"][0]["logprob"]
        for entry in logprobs["reasoning_content"]
    )


async def test_each_choice_has_its_own_budget(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    request = body(vllm_gateway, PROMPT, n=4, temperature=1.2, seed=3, max_thinking_tokens=40)
    choices = (await http.post(CHAT, json=request)).json()["choices"]

    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert len({choice["thinking"]["tokens"] for choice in choices}) > 1
    assert all(0 < choice["thinking"]["tokens"] <= 40 for choice in choices)
