"""Several chains for one answer on the real engine, verified by counting token ids."""

import asyncio
from collections import Counter
from functools import partial
from random import Random
from typing import Any

import httpx

from proctor.budget import EndReason
from tests.engine.chains import assert_total_kept, random_chains
from tests.engine.client import ask
from tests.engine.gateway import Gateway

METHODS = ("vote", "confidence", "first_agreement")


def uneven_chains(gateway: Gateway, rng: Random) -> dict[str, Any]:
    """Return a request whose chains end at any time: by itself, the model thinks evenly."""
    markers = gateway.engine.model.markers
    return random_chains(
        gateway,
        rng,
        METHODS,
        max_thinking_tokens=120,
        min_thinking_tokens=0,
        max_tokens=480,
        temperature=1.0,
        logit_bias={str(token): 15 for token in (*markers.end, *markers.eos)},
        thinking={"parallel": {"chains": 6, "answer": "number"}},
    )


def watched_chains(gateway: Gateway, rng: Random) -> dict[str, Any]:
    """Return a request whose chains may become certain or lost."""
    request = random_chains(gateway, rng, METHODS)
    early_exit = {"method": "confidence", "every": 8, "floor": 15.8, "threshold": 16.3}
    request["thinking"]["early_exit"] = early_exit
    return request


async def test_chains_share_one_budget_to_the_token(vllm_gateway: Gateway) -> None:
    rng, limits = Random(20251129), httpx.Limits(max_connections=None)
    requests = [random_chains(vllm_gateway, rng, METHODS) for _ in range(50)]
    requests += [watched_chains(vllm_gateway, rng) for _ in range(20)]
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=300, limits=limits) as http:
        answers = await asyncio.gather(*(ask(http, request) for request in requests))
        # On a busy machine, a grant may come when the other chains have ended as well.
        shared = 0
        for _ in range(20):
            if shared > 1:
                break
            uneven = [uneven_chains(vllm_gateway, rng) for _ in range(10)]
            told = await asyncio.gather(*(ask(http, request) for request in uneven))
            shared += sum(map(partial(assert_total_kept, vllm_gateway), uneven, told))
            requests += uneven
            answers += told

    for request, answer in zip(requests, answers, strict=True):
        assert_total_kept(vllm_gateway, request, answer)
    assert shared > 1
    votes = [answer["choices"][0]["thinking"]["votes"] for answer in answers]
    assert sum(each["stopped"] for each in votes) > 5
    reasons = Counter(
        vllm_gateway.engine.outcome(f"{answer['id']}-{index}").end_reason
        for request, answer in zip(requests, answers, strict=True)
        for index in range(request["thinking"]["parallel"]["chains"])
    )
    assert min(reasons[EndReason.SETTLED], reasons[EndReason.UNSURE]) > 1, reasons
    if vllm_gateway.vllm_url == vllm_gateway.url:  # not over a replica
        assert vllm_gateway.run(vllm_gateway.engine.check_slots()) == 0
