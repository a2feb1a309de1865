"""The accuracy of caps: Proctor's against vLLM's own `thinking_token_budget`.

    .venv/bin/python -m bench.native

Both servers get the same questions with the same caps, in 32 concurrent requests.
Every cap is below what the demo model would think by itself, so that all thinking
is cut. The tokens of vLLM's answers are counted from their ids, between the markers;
Proctor's are the server's count, which the tests verify against the ids.
"""

import argparse
import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from transformers import AutoTokenizer

from bench.throughput import MODEL, NAME, Side, gateway, prompts, serving, vllm_server

CAPS = range(6, 25)
NO_TIMEOUT = aiohttp.ClientTimeout(total=None)
STREAMS = 32
PROCTOR = Side("Proctor", gateway, {"thinking": {"landing": "hard"}})
VLLM = Side("vLLM", vllm_server, {"return_token_ids": True})


@dataclass(frozen=True)
class Cut:
    """The thinking of one answer, which the cap ended.

    Attributes:
        over: its tokens minus the cap.
        error: the tokens reported in `usage` minus the actual ones.
    """

    over: int
    error: int


def bodies(count: int, field: str, extra: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield requests whose cap is in the field `field`."""
    rng = random.Random(0)
    for seed, text in enumerate(prompts(count, 0)):
        yield {
            "model": NAME,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 400,
            "temperature": 0.6,
            "seed": seed,
            field: rng.choice(CAPS),
            **extra,
        }


async def send(url: str, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Send requests, and return the responses in order."""
    gate = asyncio.Semaphore(STREAMS)
    async with aiohttp.ClientSession(url, raise_for_status=True, timeout=NO_TIMEOUT) as session:

        async def one(body: Mapping[str, Any]) -> dict[str, Any]:
            async with gate, session.post("/v1/chat/completions", json=body) as response:
                answer: dict[str, Any] = await response.json()
                return answer

        return await asyncio.gather(*map(one, requests))


def reported_tokens(answer: Mapping[str, Any]) -> int:
    """Return the thinking tokens reported in `usage`."""
    details = answer["usage"].get("completion_tokens_details") or {}
    return int(details.get("reasoning_tokens") or 0)


def recount(answer: Mapping[str, Any], opens: int, closes: int) -> int:
    """Count the thinking tokens of one of vLLM's answers from its ids."""
    ids: list[int] = answer["choices"][0]["token_ids"]
    begin = ids.index(opens) + 1 if opens in ids else 0
    return ids.index(closes) - begin


def row(name: str, cuts: Sequence[Cut]) -> str:
    """Format a row of the table."""
    over = Counter(cut.over for cut in cuts)
    spread = ", ".join(f"{by:+d}: {number}" for by, number in sorted(over.items()))
    wrong = sum(cut.error != 0 for cut in cuts)
    return f"| {name} | {len(cuts)} | {spread} | {wrong} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=300)
    count = parser.parse_args().requests
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    vocabulary = tokenizer.get_vocab()
    opens, closes = vocabulary["<think>"], vocabulary["</think>"]
    print("| server | requests | tokens over the cap: requests | usage differs from the ids |")
    print("|---|--:|---|--:|")
    requests = list(bodies(count, "max_thinking_tokens", PROCTOR.extra))
    with serving(PROCTOR) as (server,):
        answers = asyncio.run(send(server.url, requests))
    cuts = [
        Cut(reported_tokens(answer) - body["max_thinking_tokens"], 0)
        for answer, body in zip(answers, requests, strict=True)
    ]
    print(row(PROCTOR.name, cuts), flush=True)

    requests = list(bodies(count, "thinking_token_budget", VLLM.extra))
    with serving(VLLM) as (server,):
        answers = asyncio.run(send(server.url, requests))
    cuts = []
    for answer, body in zip(answers, requests, strict=True):
        tokens = recount(answer, opens, closes)
        error = reported_tokens(answer) - tokens
        cuts.append(Cut(tokens - body["thinking_token_budget"], error))
    print(row(VLLM.name, cuts), flush=True)


if __name__ == "__main__":
    main()
