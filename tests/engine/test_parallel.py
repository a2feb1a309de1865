"""Several chains for one answer on the real engine, verified by counting token ids."""

import asyncio
from random import Random
from typing import Any

import httpx

from tests.engine.client import ask, body
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain


def random_request(gateway: Gateway, rng: Random, **fields: Any) -> dict[str, Any]:
    chains, method = rng.randint(2, 6), rng.choice(["vote", "confidence", "first_agreement"])
    maximum = rng.choice([0, rng.randint(chains, 20 * chains), rng.randint(100, 400)])
    request = {
        "max_thinking_tokens": maximum,
        "min_thinking_tokens": rng.choice([0, 0, maximum // chains]),
        "max_tokens": maximum + 60 * chains,
        "temperature": 0.3,
        "stream": rng.random() < 0.5,
        "thinking": {"parallel": {"chains": chains, "answer": "number", "method": method}},
    }
    return body(gateway, chain(rng, rng.randint(2, 9)), **{**request, **fields})


def uneven_request(gateway: Gateway, rng: Random) -> dict[str, Any]:
    """Return a request whose chains end at any time: by itself, the model thinks evenly."""
    markers = gateway.engine.model.markers
    return random_request(
        gateway,
        rng,
        max_thinking_tokens=120,
        min_thinking_tokens=0,
        max_tokens=480,
        temperature=1.0,
        logit_bias={str(token): 15 for token in (*markers.end, *markers.eos)},
        thinking={"parallel": {"chains": 6, "answer": "number"}},
    )


async def test_chains_share_one_budget_to_the_token(vllm_gateway: Gateway) -> None:
    rng, engine = Random(20251129), vllm_gateway.engine
    requests = [random_request(vllm_gateway, rng) for _ in range(50)]
    requests += [uneven_request(vllm_gateway, rng) for _ in range(20)]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=300, limits=limits) as http:
        answers = await asyncio.gather(*(ask(http, request) for request in requests))

    stopped, shared = 0, 0
    for request, answer in zip(requests, answers, strict=True):
        chains, maximum = request["thinking"]["parallel"]["chains"], request["max_thinking_tokens"]
        jobs = [f"{answer['id']}-{index}" for index in range(chains)]
        thinking = [len(engine.thinking_ids(job)) for job in jobs]
        # What the engine generates after a chain has been cut is neither sent nor counted.
        longest = request["max_tokens"] // chains - -(-maximum // chains)
        generated = sum(
            min(len(engine.recordings[job].tokens), tokens + longest)
            for job, tokens in zip(jobs, thinking, strict=True)
        )
        (choice,), usage = answer["choices"], answer["usage"]
        votes = choice["thinking"]["votes"]
        assert votes["tokens"] == sum(thinking) <= maximum
        assert usage["completion_tokens_details"]["reasoning_tokens"] == sum(thinking)
        assert usage["completion_tokens"] == generated <= request["max_tokens"]
        assert usage["prompt_tokens"] == len(engine.recordings[jobs[0]].job.prompt_ids)
        assert choice["thinking"]["tokens"] in thinking
        for job, tokens in zip(jobs, thinking, strict=True):
            assert engine.outcome(job).tokens == tokens
        stopped += votes["stopped"]
        shared += any(tokens > maximum // chains for tokens in thinking)
    assert stopped > 5
    assert shared > 1
    assert vllm_gateway.run(engine.check_slots()) == 0
