"""The cost of a right answer: routed, against each fixed tier, on the same prompts.

    .venv/bin/proctor serve &
    .venv/bin/python -m bench.tiers

Sends greedy requests to a running server of the demo model: prompts outside its
domain, for which it has one sentence, problems of one step, and chains of 3 to 8.
Cost is in generated tokens at one price; prompts cost the same under every tier.
"""

import argparse
import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from proctor.demo.lessons import APOLOGY, off_domain_prompt
from proctor.demo.measure import questions
from proctor.demo.world import last_integer

TIERS = ("auto", "none", "low", "medium", "high", "max")
STREAMS = 32
SEED = 11


@dataclass(frozen=True)
class Task:
    """A prompt and its right answer; None outside the model's domain."""

    kind: str
    prompt: str
    answer: int | None

    def is_right(self, content: str) -> bool:
        if self.answer is None:
            return content.strip() == APOLOGY
        return last_integer(content) == self.answer


@dataclass(frozen=True)
class Answer:
    """The result of one task."""

    task: Task
    right: bool
    tokens: int
    tier: str


def mix(count: int) -> list[Task]:
    """Return `count` tasks of each kind, none of which the model was trained on."""
    rng = random.Random(SEED)
    kinds = {"one step": (1, 1), "a chain": (3, 8)}
    sums = [
        Task(kind, question.text, question.problem.answer)
        for kind, (min_steps, max_steps) in kinds.items()
        for question in questions(count, min_steps, max_steps, SEED)
    ]
    return [Task("elsewhere", off_domain_prompt(rng), None) for _ in range(count)] + sums


async def send(url: str, tasks: Sequence[Task], tier: str) -> list[Answer]:
    """Send all tasks under one tier."""
    gate = asyncio.Semaphore(STREAMS)
    async with httpx.AsyncClient(base_url=url, timeout=600) as http:

        async def one(task: Task) -> Answer:
            body = {
                "model": "proctor-demo",
                "messages": [{"role": "user", "content": task.prompt}],
                "temperature": 0,
                "budget_tier": tier,
            }
            async with gate:
                response = await http.post("/v1/chat/completions", json=body)
            response.raise_for_status()
            completion = response.json()
            choice = completion["choices"][0]
            right = task.is_right(choice["message"]["content"] or "")
            tokens = completion["usage"]["completion_tokens"]
            return Answer(task, right, tokens, choice["thinking"]["tier"])

        return await asyncio.gather(*map(one, tasks))


def row(tier: str, answers: Sequence[Answer]) -> str:
    """Format a row of the table."""
    kinds = dict.fromkeys(answer.task.kind for answer in answers)
    share_cells = []
    for kind in kinds:
        of_kind = [answer.right for answer in answers if answer.task.kind == kind]
        share_cells.append(f"{sum(of_kind) / len(of_kind):.1%}")
    right, tokens = (
        sum(answer.right for answer in answers),
        sum(answer.tokens for answer in answers),
    )
    cells = [*share_cells, f"{right / len(answers):.1%}", f"{tokens / len(answers):.0f}"]
    return f"| {tier} | {' | '.join(cells)} | {tokens / max(1, right):.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--count", type=int, default=150, help="prompts of each kind")
    options = parser.parse_args()
    tasks = mix(options.count)
    kinds = dict.fromkeys(task.kind for task in tasks)
    print(
        f"| tier | {' | '.join(kinds)} | all right | tokens per answer | tokens per right answer |"
    )
    print(f"|---|{'--:|' * (len(kinds) + 3)}")
    routed: Counter[tuple[str, str]] = Counter()
    for tier in TIERS:
        answers = asyncio.run(send(options.base_url, tasks, tier))
        print(row(tier, answers), flush=True)
        if tier == "auto":
            routed.update((answer.task.kind, answer.tier) for answer in answers)
    print(
        "\nRouted: "
        + ", ".join(f"{kind} to {tier}: {n}" for (kind, tier), n in sorted(routed.items()))
    )


if __name__ == "__main__":
    main()
