"""Probes that find an answer settled, on the embedded engine.

Over a replica on a CPU, tokens come in bursts, which leave no time for probes.
"""

from random import Random

import httpx

from tests.engine.client import ask, body
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain


async def test_a_settled_answer_saves_thinking(
    vllm_gateway: Gateway,
) -> None:
    """A model that checks its result again and again has settled long before it ends."""
    early_exit = {"method": "answer", "answer": "number", "every": 8, "patience": 3}
    thinking = {
        "continuations": 8,
        "continuation_text": "Wait, check:\n",
        "on_loop": "off",
        "landing": "hard",
    }
    request = body(vllm_gateway, chain(Random(3), 2), max_thinking_tokens=1200, temperature=0)
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=300) as http:
        whole = await ask(http, {**request, "thinking": thinking})
        early = await ask(http, {**request, "thinking": {**thinking, "early_exit": early_exit}})
    assert early["choices"][0]["thinking"]["probe_tokens"] > 0
    (kept,) = early["choices"]
    assert kept["thinking"]["end_reason"] == "settled"
    assert kept["message"]["content"] == whole["choices"][0]["message"]["content"]
    assert kept["thinking"]["tokens"] < whole["choices"][0]["thinking"]["tokens"]
