"""How exactly a cap is kept: ours against vLLM's own `thinking_token_budget`.

    .venv/bin/python -m bench.native

The same questions with the same caps go to both servers, at 32 streams. Every
cap is below what the demo model would think by itself, so that each thinking
is cut. The tokens of vLLM's answers are counted again from their ids, between
the markers; ours are counted by the server, whose count the tests hold equal
to one from ids.
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
STREAMS = 32
OURS = Side("Proctor", gateway, {"thinking": {"landing": "hard"}})
NATIVE = Side("vLLM", vllm_server, {"return_token_ids": True})


@dataclass(frozen=True)
class Cut:
    """A thinking that was cut.

    Attributes:
        over: its tokens, less the cap.
        told: the tokens that usage tells, less those that there were.
    """

    over: int
    told: int


def bodies(count: int, field: str, extra: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Requests in which `field` carries the cap."""
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


async def ask(url: str, asked: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The answers, in order."""
    gate = asyncio.Semaphore(STREAMS)
    async with aiohttp.ClientSession(url, raise_for_status=True) as session:

        async def one(body: Mapping[str, Any]) -> dict[str, Any]:
            async with gate, session.post("/v1/chat/completions", json=body) as response:
                answer: dict[str, Any] = await response.json()
                return answer

        return await asyncio.gather(*map(one, asked))


def told(answer: Mapping[str, Any]) -> int:
    """The thinking tokens that usage tells."""
    details = answer["usage"].get("completion_tokens_details") or {}
    return int(details.get("reasoning_tokens") or 0)


def recount(answer: Mapping[str, Any], opens: int, closes: int) -> int:
    """The thinking tokens of one of vLLM's answers, from its ids."""
    ids: list[int] = answer["choices"][0]["token_ids"]
    begin = ids.index(opens) + 1 if opens in ids else 0
    return ids.index(closes) - begin


def row(name: str, cuts: Sequence[Cut]) -> str:
    """A line of the table."""
    over = Counter(cut.over for cut in cuts)
    spread = ", ".join(f"{by:+d}: {number}" for by, number in sorted(over.items()))
    wrong = sum(cut.told != 0 for cut in cuts)
    return f"| {name} | {len(cuts)} | {spread} | {wrong} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=300)
    count = parser.parse_args().requests
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    opens, closes = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    print("| server | requests | tokens over the cap: requests | usage differs from the ids |")
    print("|---|--:|---|--:|")
    asked = list(bodies(count, "max_thinking_tokens", OURS.extra))
    with serving(OURS) as server:
        answers = asyncio.run(ask(server.url, asked))
    pairs = zip(answers, asked, strict=True)
    ours = [Cut(told(answer) - body["max_thinking_tokens"], 0) for answer, body in pairs]
    print(row(OURS.name, ours), flush=True)

    asked = list(bodies(count, "thinking_token_budget", NATIVE.extra))
    with serving(NATIVE) as server:
        answers = asyncio.run(ask(server.url, asked))
    native = []
    for answer, body in zip(answers, asked, strict=True):
        tokens = recount(answer, opens, closes)
        native.append(Cut(tokens - body["thinking_token_budget"], told(answer) - tokens))
    print(row(NATIVE.name, native), flush=True)


if __name__ == "__main__":
    main()
