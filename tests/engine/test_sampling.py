"""Sampling settings and log probabilities on the real engine."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.engine.asking import CHAT, ask, body
from tests.engine.served import Served
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

PROMPT = "Start with 7, add 5, times 3. What are the last two digits?"


@pytest.fixture
async def http(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served.url, timeout=PATIENCE) as client:
        yield client


async def texts(served: Served, http: httpx.AsyncClient, **fields: Any) -> tuple[str, str]:
    answer = await ask(http, body(served, PROMPT, **fields))
    message = answer["choices"][0]["message"]
    return message["reasoning_content"], message["content"]


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-9}])
async def test_the_narrowest_sampling_is_greedy(
    served: Served, http: httpx.AsyncClient, narrow: dict[str, Any]
) -> None:
    for budget in ({}, {"min_thinking_tokens": 60}):
        greedy = await texts(served, http, temperature=0, **budget)
        assert await texts(served, http, temperature=1.5, **narrow, **budget) == greedy


async def test_a_bias_rules_the_answer_and_yields_to_the_budget(
    served: Served, http: httpx.AsyncClient
) -> None:
    (token,) = served.engine.codec.encode("7")
    biased = await ask(
        http,
        body(
            served,
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


async def test_penalties_change_the_text_and_not_the_budget(
    served: Served, http: httpx.AsyncClient
) -> None:
    plain = await texts(served, http, temperature=0)
    for penalty in ("presence_penalty", "frequency_penalty"):
        answer = await ask(
            http,
            body(served, PROMPT, temperature=0, max_thinking_tokens=20, **{penalty: 2.0}),
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
async def test_under_a_minimum_that_nothing_runs_into_penalties_give_the_same_text(
    served: Served, http: httpx.AsyncClient, penalties: dict[str, float]
) -> None:
    asked = {"temperature": 0, "max_thinking_tokens": 300, "max_tokens": 500, **penalties}
    (plain,) = (await ask(http, body(served, PROMPT, **asked)))["choices"]
    for least in (1, plain["thinking"]["tokens"]):
        request = body(served, PROMPT, min_thinking_tokens=least, **asked)
        (choice,) = (await ask(http, request))["choices"]
        assert choice["thinking"]["min_tokens"] == least > 0
        assert choice["message"] == plain["message"]


async def test_penalties_and_a_minimum_hold_beside_each_other(
    served: Served, http: httpx.AsyncClient
) -> None:
    asked = {"min_thinking_tokens": 120, "frequency_penalty": 0.3, "seed": 5, "temperature": 1.0}
    one, other = [await ask(http, body(served, PROMPT, **asked)) for _ in range(2)]
    thinking = one["choices"][0]["thinking"]
    assert thinking["tokens"] >= 120 or thinking["end_reason"] == "loop"
    assert one["choices"][0]["message"] == other["choices"][0]["message"]


@pytest.mark.parametrize(
    "text", ["hello", "Prove that there are infinitely many primes of the form 4k+3."]
)
@pytest.mark.parametrize("form", [None, {"type": "json_object"}])
async def test_what_the_router_thinks_makes_no_penalty_fail(
    served: Served, http: httpx.AsyncClient, text: str, form: dict[str, Any] | None
) -> None:
    fields = {} if form is None else {"response_format": form}
    request = body(
        served, text, budget_tier="auto", frequency_penalty=0.3, max_tokens=400, **fields
    )
    response = await http.post(CHAT, json=request)
    assert response.status_code == 200, response.text


async def test_scores_are_of_the_tokens_that_were_chosen(
    served: Served, http: httpx.AsyncClient
) -> None:
    request = body(
        served,
        PROMPT,
        temperature=0,
        logprobs=True,
        top_logprobs=4,
        thinking={"logprobs": True, "continuations": 1},
    )
    choice = (await ask(http, request))["choices"][0]

    told = choice["logprobs"]
    for key, text in (("content", "content"), ("reasoning_content", "reasoning_content")):
        scores = told[key]
        joined = b"".join(bytes(score["bytes"]) for score in scores).decode()
        assert joined.strip("\n") == choice["message"][text].strip("\n")
        for score in scores:
            assert len(score["top_logprobs"]) == 4
            ranked = [other["logprob"] for other in score["top_logprobs"]]
            assert ranked == sorted(ranked, reverse=True)
            assert score["logprob"] <= ranked[0] <= 0
    greedy = [s for s in told["content"] if s["logprob"] == s["top_logprobs"][0]["logprob"]]
    assert len(greedy) == len(told["content"])
    # Forced tokens keep the model's own opinion of them.
    assert any(
        score["logprob"] < score["top_logprobs"][0]["logprob"]
        for score in told["reasoning_content"]
    )


async def test_each_choice_has_a_budget_of_its_own(served: Served, http: httpx.AsyncClient) -> None:
    request = body(served, PROMPT, n=4, temperature=1.2, seed=3, max_thinking_tokens=40)
    choices = (await http.post(CHAT, json=request)).json()["choices"]

    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert len({choice["thinking"]["tokens"] for choice in choices}) > 1
    assert all(0 < choice["thinking"]["tokens"] <= 40 for choice in choices)
