"""How often thinking that a cap cuts goes on in the answer, as far as that can be recognised.

    .venv/bin/python -m bench.spilled --model .venv/real-model/model \
        --thinking-start '<think>' --thinking-end '</think>' QUESTIONS.jsonl

Asks every question (the `question` or `prompt` of each line) under several caps. The table has the
answers whose thinking the cap ended, and of these the ones with `thinking.spilled_tokens`.
"""

import asyncio
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from bench.loops import question_parser, questions_of, share, side_of
from bench.native import send
from bench.throughput import NAME, serving

CAPS = (0, 16, 64, 256)
ANSWER = 512


def bodies(questions: Sequence[str], cap: int, temperature: float) -> Iterator[dict[str, Any]]:
    """Yield requests with a cap on their thinking, and room for a long answer."""
    for seed, question in enumerate(questions):
        yield {
            "model": NAME,
            "messages": [{"role": "user", "content": question}],
            "temperature": temperature,
            "seed": seed,
            "max_thinking_tokens": cap,
            "max_tokens": cap + ANSWER,
        }


def row(cap: int, answers: Sequence[dict[str, Any]]) -> str:
    """Return the line of the table for one cap."""
    thinking = [answer["choices"][0]["thinking"] for answer in answers]
    cut = [each for each in thinking if each["end_reason"] in ("max", "disabled")]
    spilled = [each["spilled_tokens"] for each in cut if each["spilled_tokens"]]
    median = f"{statistics.median(spilled):.0f}" if spilled else ""
    return f"| {cap} | {len(cut)} | {share(len(spilled), len(cut))} | {median} |"


def main() -> None:
    options = question_parser(str(__doc__), temperature=0.7, count=100).parse_args()
    side, questions = side_of(options), questions_of(options)
    print("| cap | cut | spilled | tokens, median |\n|--:|--:|---|--:|")
    with serving(side) as (server,):
        for cap in CAPS:
            requests = [*bodies(questions, cap, options.temperature)]
            print(row(cap, asyncio.run(send(server.url, requests))), flush=True)


if __name__ == "__main__":
    main()
