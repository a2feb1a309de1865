"""How well loops are detected in a model's own thinking.

    .venv/bin/python -m bench.loops --model .venv/real-model/model \
        --thinking-start '<think>' --thinking-end '</think>' QUESTIONS.jsonl

Asks every question (the `question` or `prompt` of each line) with detection off and at most 512
thinking tokens, then runs the detector over the tokens. Thinking counts as a loop if its last 128
tokens repeat themselves with a period of at most 32. Prints the share of these that is detected,
the tokens until then, and how many others are detected: those that have repeated themselves until
then, some 8 tokens at least three times, and the end of each of the rest, to be judged by a reader.
"""

import argparse
import asyncio
import json
import statistics
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from bench.native import send
from bench.throughput import MODEL, NAME, Side, gateway, serving
from proctor.budget.loops import LoopDetector
from proctor.budget.processors.tokenizer.vocabulary import read_vocabulary
from proctor.demo.measure import wilson

MOST = 512
LONGEST = 1024
"""Tokens; longer questions are left out."""

TAIL, PERIOD = 128, 32
WINDOW, COPY, COPIES = 512, 8, 3
"""A text has repeated itself if `COPY` tokens occur `COPIES` times in its last `WINDOW` tokens."""

SHOWN = 1600
"""Characters of the end of a text that are printed."""


def bodies(questions: Sequence[str], temperature: float) -> Iterator[dict[str, Any]]:
    """Yield requests that think until the model ends it or the cap is reached."""
    for seed, question in enumerate(questions):
        yield {
            "model": NAME,
            "messages": [{"role": "user", "content": question}],
            "temperature": temperature,
            "seed": seed,
            "max_thinking_tokens": MOST,
            "max_tokens": MOST + 32,
            "thinking": {"type": "enabled", "on_loop": "off"},
            "return_token_ids": True,
        }


def repeats(tokens: Sequence[int]) -> bool:
    """Return whether the last `TAIL` tokens have a period of at most `PERIOD`."""
    tail = tokens[-TAIL:]
    periods = range(1, PERIOD + 1)
    return len(tail) == TAIL and any(tail[:-period] == tail[period:] for period in periods)


def has_repeated(tokens: Sequence[int]) -> bool:
    """Return whether a text has repeated itself, with whatever between the copies."""
    window = tokens[-WINDOW:]
    starts: dict[tuple[int, ...], list[int]] = {}
    for start in range(len(window) - COPY + 1):
        copies = starts.setdefault(tuple(window[start : start + COPY]), [])
        if not copies or start - copies[-1] >= COPY:
            copies.append(start)
    return any(len(copies) >= COPIES for copies in starts.values())


def detected_at(tokens: Sequence[int], weights: bytes) -> int | None:
    """Return after how many tokens a loop is detected."""
    detector = LoopDetector(weights)
    return next((at for at, token in enumerate(tokens, 1) if detector.advance(token)), None)


def share(part: int, whole: int) -> str:
    low, high = wilson(part, whole)
    return f"{part} of {whole}: {part / max(1, whole):.4f} ({low:.4f}-{high:.4f})"


def read_questions(path: Path, count: int) -> list[str]:
    with path.open(encoding="utf-8") as lines:  # str.splitlines would split within strings
        questions = [json.loads(line) for line in islice(lines, count)]
    return [question.get("question") or question["prompt"] for question in questions]


def report(thinking: Sequence[Sequence[int]], tokenizer: Any) -> Iterator[str]:
    """Yield the lines of the report on all thinking, given as token ids."""
    weights = read_vocabulary(tokenizer, len(tokenizer)).weights
    found = [(tokens, detected_at(tokens, weights)) for tokens in thinking]
    looping = [at for tokens, at in found if repeats(tokens)]
    in_time = [at for at in looping if at is not None]
    others = [(tokens, at) for tokens, at in found if not repeats(tokens)]
    alarms = [(tokens, at) for tokens, at in others if at is not None]
    yield f"loops to the end, detected: {share(len(in_time), len(looping))}"
    if in_time:
        yield f"tokens until then, median: {statistics.median(in_time):.0f}"
    yield f"detected in other thinking: {share(len(alarms), len(others))}"
    unclear = [(tokens, at) for tokens, at in alarms if not has_repeated(tokens[:at])]
    yield f"without having repeated itself: {share(len(unclear), len(others))}"
    for tokens, at in unclear:
        yield f"- after {at}: {tokenizer.decode(tokens[:at])[-SHOWN:]!r}"


def question_parser(description: str, temperature: float, count: int) -> argparse.ArgumentParser:
    """Return a parser of the options of a benchmark that asks questions, with two defaults."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(MODEL))
    parser.add_argument("--thinking-start", default="")
    parser.add_argument("--thinking-end", default="")
    parser.add_argument("--temperature", type=float, default=temperature)
    parser.add_argument("--count", type=int, default=count, help="questions of each file")
    parser.add_argument("questions", type=Path, nargs="+")
    return parser


def side_of(options: argparse.Namespace) -> Side:
    """Return the gateway over the model of the options."""
    markers: list[str] = []
    if options.thinking_start and options.thinking_end:
        markers = ["--thinking-start", options.thinking_start]
        markers += ["--thinking-end", options.thinking_end]
    return Side("gateway", lambda port: [*gateway(port, options.model), *markers], {})


def questions_of(options: argparse.Namespace) -> list[str]:
    """Return the questions of all files."""
    return [
        question for path in options.questions for question in read_questions(path, options.count)
    ]


def main() -> None:
    options = question_parser(str(__doc__), temperature=0.0, count=200).parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    # Longer ones would not leave room for the thinking in every context.
    lengths = {question: len(tokenizer(question).input_ids) for question in questions_of(options)}
    questions = [question for question, length in lengths.items() if length <= LONGEST]
    side = side_of(options)
    with serving(side) as (server,):
        answers = asyncio.run(send(server.url, [*bodies(questions, options.temperature)]))
    thinking = [
        answer["choices"][0]["token_ids"][: answer["choices"][0]["thinking"]["tokens"]]
        for answer in answers
    ]
    print(f"{len(thinking)} texts of thinking, {sum(map(len, thinking))} tokens")
    for line in report(thinking, tokenizer):
        print(line)


if __name__ == "__main__":
    main()
