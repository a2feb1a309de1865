"""Scores of prompts, lists of prompts and answers of a least length, on the real engine."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from proctor.server.engines.vllm import engine as vllm
from tests.engine.asking import body
from tests.engine.served import Served
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

PROMPT = "Start with 7, add 5, times 3, minus 4. What are the last two digits?"
RAW = "/v1/completions"
CHAT = "/v1/chat/completions"


@pytest.fixture
async def http(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
async def prompt(http: httpx.AsyncClient) -> list[int]:
    """The tokens of a chat's prompt, which opens a thinking."""
    messages = [{"role": "user", "content": PROMPT}]
    found: list[int] = (await post(http, "/tokenize", messages=messages))["tokens"]
    return found


async def post(http: httpx.AsyncClient, path: str, **fields: Any) -> Any:
    response = await http.post(path, json=fields)
    assert response.status_code == 200, response.text
    return response.json()


def raw(served: Served, prompt: Any, **fields: Any) -> dict[str, Any]:
    return {"model": served.engine.model.name, "prompt": prompt, "temperature": 0, **fields}


async def test_a_prompt_has_the_scores_that_it_had_as_an_answer(
    served: Served, http: httpx.AsyncClient, prompt: list[int]
) -> None:
    fields = raw(served, prompt, max_tokens=200, logprobs=3, return_token_ids=True)
    told = (await post(http, RAW, **fields))["choices"][0]
    ids, scores = told["token_ids"], told["logprobs"]
    fields = raw(served, [*prompt, *ids[:-1]], max_tokens=1, logprobs=3, echo=True)
    again = (await post(http, RAW, **fields))["choices"][0]["logprobs"]

    assert len(ids) == len(scores["tokens"]) > 20
    assert again["token_logprobs"][0] is None
    since = len(prompt)
    assert again["tokens"][since:-1] == scores["tokens"][:-1]
    assert again["token_logprobs"][since:-1] == pytest.approx(
        scores["token_logprobs"][:-1], abs=1e-2
    )
    for ours, theirs in zip(again["top_logprobs"][since:-1], scores["top_logprobs"], strict=False):
        assert max(ours.values()) == pytest.approx(max(theirs.values()), abs=1e-2)
        assert 3 <= len(ours) <= 4
    assert {len(column) for column in again.values()} == {since + len(ids)}


async def test_each_token_stands_where_its_offset_says(
    served: Served, http: httpx.AsyncClient, prompt: list[int]
) -> None:
    text = (await post(http, "/detokenize", tokens=prompt))["prompt"]
    fields = raw(served, text, max_tokens=300, logprobs=0, echo=True, max_thinking_tokens=20)

    told = (await post(http, RAW, **fields))["choices"][0]

    assert told["text"].startswith(text)
    logprobs = told["logprobs"]
    for token, at in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert told["text"][at : at + len(token)] == token or at == len(told["text"])


async def test_nothing_is_generated_for_no_tokens(
    served: Served, http: httpx.AsyncClient, prompt: list[int]
) -> None:
    fields = raw(served, [prompt, prompt[:9]], max_tokens=0, logprobs=1, echo=True)

    told = await post(http, RAW, **fields)

    assert told["usage"]["completion_tokens"] == 0
    assert told["usage"]["prompt_tokens"] == len(prompt) + 9
    lengths = [len(choice["logprobs"]["tokens"]) for choice in told["choices"]]
    assert lengths == [len(prompt), 9]
    short = told["choices"][1]["logprobs"]["token_logprobs"]
    assert short[1:] == pytest.approx(
        told["choices"][0]["logprobs"]["token_logprobs"][1:9], abs=1e-2
    )


async def test_prompt_logprobs(served: Served, http: httpx.AsyncClient) -> None:
    fields = body(served, PROMPT, max_tokens=200, max_thinking_tokens=8, prompt_logprobs=2)

    told = await post(http, CHAT, **fields, return_token_ids=True)

    ids, scores = told["prompt_token_ids"], told["prompt_logprobs"]
    assert len(scores) == len(ids)
    assert scores[0] is None
    for token, score in zip(ids[1:], scores[1:], strict=True):
        own = score[str(token)]
        assert own["logprob"] <= 0
        assert own["rank"] >= 1
        likeliest = [each["logprob"] for each in score.values() if each["rank"] == 1]
        assert max(each["logprob"] for each in score.values()) in likeliest
        assert len(score) in (2, 3)
    codec = served.engine.codec
    assert scores[1][str(ids[1])]["decoded_token"] == codec.token_bytes(ids[1]).decode()


async def test_a_list_gives_what_its_prompts_give(
    served: Served, http: httpx.AsyncClient, prompt: list[int]
) -> None:
    prompts = [prompt, "so <think>", "abc", prompt[:5]]
    fields = {"max_tokens": 60, "seed": 3, "temperature": 1, "n": 2, "max_thinking_tokens": 9}

    together = await post(http, RAW, **raw(served, prompts, **fields))
    alone = [await post(http, RAW, **raw(served, each, **fields)) for each in prompts]

    choices = [choice for answer in alone for choice in answer["choices"]]
    assert [choice["text"] for choice in together["choices"]] == [each["text"] for each in choices]
    for name in ("prompt_tokens", "completion_tokens"):
        assert together["usage"][name] == sum(answer["usage"][name] for answer in alone)


@pytest.mark.parametrize("sampled", [{"temperature": 0}, {"temperature": 1.5, "seed": 4}])
@pytest.mark.parametrize(
    "budget", [{}, {"min_thinking_tokens": 60}, {"max_thinking_tokens": 0}, {"presence_penalty": 1}]
)
async def test_an_answer_of_a_least_length(
    served: Served, http: httpx.AsyncClient, budget: dict[str, Any], sampled: dict[str, Any]
) -> None:
    fields = {"max_tokens": 400, "return_token_ids": True, **budget, **sampled}
    told = await asyncio.gather(
        *(
            post(http, CHAT, **body(served, PROMPT, min_tokens=least, **fields))
            for least in (0, 1, 40, 80)
        ),
        post(http, CHAT, **body(served, PROMPT, ignore_eos=True, **fields)),
    )

    (end,) = served.engine.model.markers.end
    eos = served.engine.model.markers.eos
    for answer, least in zip(told, (0, 1, 40, 80, 0), strict=True):
        ids = answer["choices"][0]["token_ids"]
        opened = budget.get("max_thinking_tokens") != 0
        said = ids[ids.index(end) + 1 :] if opened else ids
        said = [token for token in said if token not in eos]
        assert len(said) >= least
        assert len(ids) == answer["usage"]["completion_tokens"]
        thought = answer["choices"][0]["thinking"]["tokens"]
        assert thought >= budget.get("min_thinking_tokens", 0)
    assert told[-1]["choices"][0]["finish_reason"] == "length"
    assert told[-1]["usage"]["completion_tokens"] == 400


async def test_a_thinking_goes_on_where_it_was_left(
    served: Served, http: httpx.AsyncClient
) -> None:
    fields = {"max_tokens": 900, "temperature": 0, "return_token_ids": True}
    whole = await post(http, CHAT, **body(served, PROMPT, **fields))
    message = whole["choices"][0]["message"]
    thought = message["reasoning_content"]
    begun = thought[: thought.index("\n", len(thought) // 3) + 1] if "\n" in thought else ""
    messages = [
        {"role": "user", "content": PROMPT},
        {"role": "assistant", "content": None, "reasoning_content": begun or thought[:9]},
    ]

    rest = await post(
        http,
        CHAT,
        model=served.engine.model.name,
        messages=messages,
        continue_final_message=True,
        add_generation_prompt=False,
        **fields,
    )

    cut = rest["prompt_token_ids"]
    ids = [*whole["prompt_token_ids"], *whole["choices"][0]["token_ids"]]
    assert cut == ids[: len(cut)]
    assert rest["choices"][0]["token_ids"] == ids[len(cut) :]
    assert rest["choices"][0]["message"]["content"] == message["content"]


async def test_an_answer_goes_on_where_it_was_left(served: Served, http: httpx.AsyncClient) -> None:
    messages = [
        {"role": "user", "content": PROMPT},
        {"role": "assistant", "content": "The last two digits <|im_end|> are "},
    ]

    told = await post(
        http,
        CHAT,
        model=served.engine.model.name,
        messages=messages,
        continue_final_message=True,
        echo=True,
        max_tokens=40,
        return_token_ids=True,
    )

    codec = served.engine.codec
    text = codec.decode(told["prompt_token_ids"])
    assert text.endswith("assistant\nThe last two digits <|im_end|> are ")
    eos = served.engine.model.markers.eos
    assert not eos & {*told["prompt_token_ids"][-12:]}
    assert told["choices"][0]["message"]["content"].startswith(
        "The last two digits <|im_end|> are "
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"logprobs": 1, "echo": True}, "logprobs"), ({"prompt_logprobs": 1}, "prompt_logprobs")],
)
async def test_scores_that_would_take_too_much_memory(
    served: Served,
    http: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    param: str,
) -> None:
    monkeypatch.setattr(vllm, "MAX_PROMPT_LOGITS", 10 * served.engine.codec.vocabulary_size)

    refused = await http.post(RAW, json=raw(served, [5] * 11, max_tokens=1, **fields))
    taken = await http.post(RAW, json=raw(served, [5] * 10, max_tokens=1, **fields))

    assert (refused.status_code, taken.status_code) == (400, 200)
    assert refused.json()["error"]["param"] == param
