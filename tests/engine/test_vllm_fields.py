"""Prompt logprobs, lists of prompts, `min_tokens` and `continue_final_message` on the engine."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from proctor.server.engines.vllm import sampling as vllm_sampling
from tests.engine.client import body
from tests.engine.gateway import Gateway
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

PROMPT = "Start with 7, add 5, times 3, minus 4. What are the last two digits?"
RAW = "/v1/completions"
CHAT = "/v1/chat/completions"


@pytest.fixture
async def http(vllm_gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
async def prompt(http: httpx.AsyncClient) -> list[int]:
    """The token ids of a rendered chat, which opens a thinking block."""
    messages = [{"role": "user", "content": PROMPT}]
    ids: list[int] = (await post(http, "/tokenize", messages=messages))["tokens"]
    return ids


async def post(http: httpx.AsyncClient, path: str, **fields: Any) -> Any:
    response = await http.post(path, json=fields)
    assert response.status_code == 200, response.text
    return response.json()


def raw(gateway: Gateway, prompt: Any, **fields: Any) -> dict[str, Any]:
    return {"model": gateway.engine.model.name, "prompt": prompt, "temperature": 0, **fields}


async def test_prompt_logprobs_equal_those_of_the_answer(
    vllm_gateway: Gateway, http: httpx.AsyncClient, prompt: list[int]
) -> None:
    fields = raw(vllm_gateway, prompt, max_tokens=200, logprobs=3, return_token_ids=True)
    choice = (await post(http, RAW, **fields))["choices"][0]
    ids, logprobs = choice["token_ids"], choice["logprobs"]
    fields = raw(vllm_gateway, [*prompt, *ids[:-1]], max_tokens=1, logprobs=3, echo=True)
    again = (await post(http, RAW, **fields))["choices"][0]["logprobs"]

    assert len(ids) == len(logprobs["tokens"]) > 20
    assert again["token_logprobs"][0] is None
    start = len(prompt)
    assert again["tokens"][start:-1] == logprobs["tokens"][:-1]
    assert again["token_logprobs"][start:-1] == pytest.approx(
        logprobs["token_logprobs"][:-1], abs=1e-2
    )
    for ours, theirs in zip(
        again["top_logprobs"][start:-1], logprobs["top_logprobs"], strict=False
    ):
        assert max(ours.values()) == pytest.approx(max(theirs.values()), abs=1e-2)
        assert 3 <= len(ours) <= 4
    assert {len(column) for column in again.values()} == {start + len(ids)}


async def test_text_offsets_locate_each_token(
    vllm_gateway: Gateway, http: httpx.AsyncClient, prompt: list[int]
) -> None:
    text = (await post(http, "/detokenize", tokens=prompt))["prompt"]
    fields = raw(vllm_gateway, text, max_tokens=300, logprobs=0, echo=True, max_thinking_tokens=20)

    choice = (await post(http, RAW, **fields))["choices"][0]

    assert choice["text"].startswith(text)
    logprobs = choice["logprobs"]
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert choice["text"][offset : offset + len(token)] == token or offset == len(
            choice["text"]
        )


async def test_max_tokens_0_only_scores_the_prompt(
    vllm_gateway: Gateway, http: httpx.AsyncClient, prompt: list[int]
) -> None:
    fields = raw(vllm_gateway, [prompt, prompt[:9]], max_tokens=0, logprobs=1, echo=True)

    answer = await post(http, RAW, **fields)

    assert answer["usage"]["completion_tokens"] == 0
    assert answer["usage"]["prompt_tokens"] == len(prompt) + 9
    lengths = [len(choice["logprobs"]["tokens"]) for choice in answer["choices"]]
    assert lengths == [len(prompt), 9]
    short = answer["choices"][1]["logprobs"]["token_logprobs"]
    assert short[1:] == pytest.approx(
        answer["choices"][0]["logprobs"]["token_logprobs"][1:9], abs=1e-2
    )


async def test_prompt_logprobs(vllm_gateway: Gateway, http: httpx.AsyncClient) -> None:
    fields = body(vllm_gateway, PROMPT, max_tokens=200, max_thinking_tokens=8, prompt_logprobs=2)

    answer = await post(http, CHAT, **fields, return_token_ids=True)

    ids, logprobs = answer["prompt_token_ids"], answer["prompt_logprobs"]
    assert len(logprobs) == len(ids)
    assert logprobs[0] is None
    for token, entry in zip(ids[1:], logprobs[1:], strict=True):
        chosen = entry[str(token)]
        assert chosen["logprob"] <= 0
        assert chosen["rank"] >= 1
        top = [each["logprob"] for each in entry.values() if each["rank"] == 1]
        assert max(each["logprob"] for each in entry.values()) in top
        assert len(entry) in (2, 3)
    codec = vllm_gateway.engine.codec
    assert logprobs[1][str(ids[1])]["decoded_token"] == codec.token_bytes(ids[1]).decode()


async def test_a_list_gives_the_same_as_its_prompts(
    vllm_gateway: Gateway, http: httpx.AsyncClient, prompt: list[int]
) -> None:
    prompts = [prompt, "so <think>", "abc", prompt[:5]]
    fields = {"max_tokens": 60, "seed": 3, "temperature": 1, "n": 2, "max_thinking_tokens": 9}

    together = await post(http, RAW, **raw(vllm_gateway, prompts, **fields))
    alone = [await post(http, RAW, **raw(vllm_gateway, each, **fields)) for each in prompts]

    choices = [choice for answer in alone for choice in answer["choices"]]
    assert [choice["text"] for choice in together["choices"]] == [each["text"] for each in choices]
    for name in ("prompt_tokens", "completion_tokens"):
        assert together["usage"][name] == sum(answer["usage"][name] for answer in alone)


@pytest.mark.parametrize("sampled", [{"temperature": 0}, {"temperature": 1.5, "seed": 4}])
@pytest.mark.parametrize(
    "budget", [{}, {"min_thinking_tokens": 60}, {"max_thinking_tokens": 0}, {"presence_penalty": 1}]
)
async def test_min_tokens_and_ignore_eos(
    vllm_gateway: Gateway, http: httpx.AsyncClient, budget: dict[str, Any], sampled: dict[str, Any]
) -> None:
    fields = {"max_tokens": 400, "return_token_ids": True, **budget, **sampled}
    answers = await asyncio.gather(
        *(
            post(http, CHAT, **body(vllm_gateway, PROMPT, min_tokens=minimum, **fields))
            for minimum in (0, 1, 40, 80)
        ),
        post(http, CHAT, **body(vllm_gateway, PROMPT, ignore_eos=True, **fields)),
    )

    (end,) = vllm_gateway.engine.model.markers.end
    eos = vllm_gateway.engine.model.markers.eos
    for answer, minimum in zip(answers, (0, 1, 40, 80, 0), strict=True):
        ids = answer["choices"][0]["token_ids"]
        opened = budget.get("max_thinking_tokens") != 0
        answer_ids = ids[ids.index(end) + 1 :] if opened else ids
        answer_ids = [token for token in answer_ids if token not in eos]
        assert len(answer_ids) >= minimum
        assert len(ids) == answer["usage"]["completion_tokens"]
        thinking_tokens = answer["choices"][0]["thinking"]["tokens"]
        assert thinking_tokens >= budget.get("min_thinking_tokens", 0)
    assert answers[-1]["choices"][0]["finish_reason"] == "length"
    assert answers[-1]["usage"]["completion_tokens"] == 400


async def test_an_unfinished_thinking_is_continued(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    fields = {"max_tokens": 900, "temperature": 0, "return_token_ids": True}
    whole = await post(http, CHAT, **body(vllm_gateway, PROMPT, **fields))
    message = whole["choices"][0]["message"]
    thinking = message["reasoning_content"]
    beginning = thinking[: thinking.index("\n", len(thinking) // 3) + 1] if "\n" in thinking else ""
    messages = [
        {"role": "user", "content": PROMPT},
        {"role": "assistant", "content": None, "reasoning_content": beginning or thinking[:9]},
    ]

    rest = await post(
        http,
        CHAT,
        model=vllm_gateway.engine.model.name,
        messages=messages,
        continue_final_message=True,
        add_generation_prompt=False,
        **fields,
    )

    prompt_ids = rest["prompt_token_ids"]
    ids = [*whole["prompt_token_ids"], *whole["choices"][0]["token_ids"]]
    assert prompt_ids == ids[: len(prompt_ids)]
    assert rest["choices"][0]["token_ids"] == ids[len(prompt_ids) :]
    assert rest["choices"][0]["message"]["content"] == message["content"]


async def test_an_unfinished_answer_is_continued(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    messages = [
        {"role": "user", "content": PROMPT},
        {"role": "assistant", "content": "The last two digits <|im_end|> are "},
    ]

    answer = await post(
        http,
        CHAT,
        model=vllm_gateway.engine.model.name,
        messages=messages,
        continue_final_message=True,
        echo=True,
        max_tokens=40,
        return_token_ids=True,
    )

    codec = vllm_gateway.engine.codec
    text = codec.decode(answer["prompt_token_ids"])
    assert text.endswith("assistant\nThe last two digits <|im_end|> are ")
    eos = vllm_gateway.engine.model.markers.eos
    assert not eos & {*answer["prompt_token_ids"][-12:]}
    assert answer["choices"][0]["message"]["content"].startswith(
        "The last two digits <|im_end|> are "
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"logprobs": 1, "echo": True}, "logprobs"), ({"prompt_logprobs": 1}, "prompt_logprobs")],
)
async def test_prompt_logprobs_are_limited_by_memory(
    vllm_gateway: Gateway,
    http: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    param: str,
) -> None:
    monkeypatch.setattr(
        vllm_sampling, "MAX_PROMPT_LOGITS", 10 * vllm_gateway.engine.codec.vocabulary_size
    )

    refused = await http.post(RAW, json=raw(vllm_gateway, [5] * 11, max_tokens=1, **fields))
    accepted = await http.post(RAW, json=raw(vllm_gateway, [5] * 10, max_tokens=1, **fields))

    assert (refused.status_code, accepted.status_code) == (400, 200)
    assert refused.json()["error"]["param"] == param


async def test_a_priority_needs_an_engine_that_schedules_by_it(
    vllm_gateway: Gateway, http: httpx.AsyncClient
) -> None:
    refused = await http.post(RAW, json=raw(vllm_gateway, [5], max_tokens=1, priority=1))
    accepted = await http.post(RAW, json=raw(vllm_gateway, [5], max_tokens=1, priority=0))
    assert (refused.status_code, accepted.status_code) == (400, 200)
    assert refused.json()["error"]["param"] == "priority"
