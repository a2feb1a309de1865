"""What a right answer costs: routed, against always one tier, on the same mix of prompts.

    .venv/bin/proctor serve &
    .venv/bin/python -m bench.tiers

Asks a running server of the demo model, greedily: prompts outside its world, for
which it has one sentence, sums of one step, and chains of 3 to 8. Cost is in
generated tokens at one price; the prompts cost the same on every side.
"""

import argparse
import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from proctor.demo.lessons import APOLOGY, off_prompt
from proctor.demo.measure import questions
from proctor.demo.world import last_integer

TIERS = ("auto", "none", "low", "medium", "high", "max")
STREAMS = 32
SEED = 11


@dataclass(frozen=True)
class Asked:
    """A prompt and what is right."""

    kind: str
    prompt: str
    answer: int | None

    def is_right(self, content: str) -> bool:
        if self.answer is None:
            return content.strip() == APOLOGY
        return last_integer(content) == self.answer


@dataclass(frozen=True)
class Answered:
    """What came of one."""

    asked: Asked
    right: bool
    tokens: int
    tier: str


def mix(count: int) -> list[Asked]:
    """`count` prompts of each kind, none of which the model was trained on."""
    rng = random.Random(SEED)
    kinds = {"one step": (1, 1), "a chain": (3, 8)}
    sums = [
        Asked(kind, question.text, question.problem.answer)
        for kind, (fewest, most) in kinds.items()
        for question in questions(count, fewest, most, SEED)
    ]
    return [Asked("elsewhere", off_prompt(rng), None) for _ in range(count)] + sums


async def examine(url: str, asked: Sequence[Asked], tier: str) -> list[Answered]:
    """Ask everything under one tier."""
    gate = asyncio.Semaphore(STREAMS)
    async with httpx.AsyncClient(base_url=url, timeout=600) as http:

        async def one(question: Asked) -> Answered:
            body = {
                "model": "proctor-demo",
                "messages": [{"role": "user", "content": question.prompt}],
                "temperature": 0,
                "budget_tier": tier,
            }
            async with gate:
                response = await http.post("/v1/chat/completions", json=body)
            response.raise_for_status()
            answer = response.json()
            choice = answer["choices"][0]
            right = question.is_right(choice["message"]["content"] or "")
            tokens = answer["usage"]["completion_tokens"]
            return Answered(question, right, tokens, choice["thinking"]["tier"])

        return await asyncio.gather(*map(one, asked))


def row(tier: str, answers: Sequence[Answered]) -> str:
    """A line of the table."""
    kinds = dict.fromkeys(answer.asked.kind for answer in answers)
    shares = []
    for kind in kinds:
        here = [answer.right for answer in answers if answer.asked.kind == kind]
        shares.append(f"{sum(here) / len(here):.1%}")
    right, tokens = (
        sum(answer.right for answer in answers),
        sum(answer.tokens for answer in answers),
    )
    cells = [*shares, f"{right / len(answers):.1%}", f"{tokens / len(answers):.0f}"]
    return f"| {tier} | {' | '.join(cells)} | {tokens / max(1, right):.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--count", type=int, default=150, help="prompts of each kind")
    given = parser.parse_args()
    asked = mix(given.count)
    kinds = dict.fromkeys(question.kind for question in asked)
    print(f"| tier | {' | '.join(kinds)} | all right | tokens an answer | tokens a right answer |")
    print(f"|---|{'--:|' * (len(kinds) + 3)}")
    routed: Counter[tuple[str, str]] = Counter()
    for tier in TIERS:
        answers = asyncio.run(examine(given.base_url, asked, tier))
        print(row(tier, answers), flush=True)
        if tier == "auto":
            routed.update((answer.asked.kind, answer.tier) for answer in answers)
    print(
        "\nRouted: "
        + ", ".join(f"{kind} to {tier}: {n}" for (kind, tier), n in sorted(routed.items()))
    )


if __name__ == "__main__":
    main()
