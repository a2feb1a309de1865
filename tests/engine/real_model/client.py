"""SmolLM2-135M-Instruct: requests to it, and its thinking counted from bytes."""

import asyncio
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.engine.client import ask, body
from tests.engine.gateway import Gateway

MODEL = Path(sys.prefix) / "real-model" / "model"
"""Made by `make .venv/real-model/.made` (see demo/smollm2.py)."""

START, END = "<think>", "</think>"

QUESTIONS = (
    "4 and 4?",
    "Name three rivers of Europe, as a list.",
    "Write a Python function that reverses a string.",
    "Show the planets and their sizes in a table.",
    "Why is the sky blue? Explain it step by step.",
    "Tell a short story about a fox and a crow.",
    "Was kostet ein Brot, wenn drei Brote 9 Euro kosten?",
)

EXAMPLES = [
    ("2 and 3?", "2 and 3 make 5.", "5"),
    ("7 and 1?", "7 and 1 make 8.", "8"),
    ("3 and 6?", "3 and 6 make 9.", "9"),
]


def conversation(question: str) -> list[dict[str, Any]]:
    """Return a conversation that shows the format of thinking, and ends with a question."""
    messages: list[dict[str, Any]] = []
    for asked, thought, answer in EXAMPLES:
        shown = f"{START}{thought}{END}\nA: {answer}"
        messages += [
            {"role": "user", "content": f"Q: {asked}"},
            {"role": "assistant", "content": [{"type": "text", "text": shown}]},
        ]
    return [*messages, {"role": "user", "content": f"Q: {question}"}]


def request_for(gateway: Gateway, question: str, **fields: Any) -> dict[str, Any]:
    """Return a chat request whose conversation shows the format of thinking."""
    return body(gateway, "", **{"messages": conversation(question), **fields})


async def send_all(gateway: Gateway, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Send requests, 12 at a time, and return their responses."""
    slots = asyncio.Semaphore(12)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=600) as http:

        async def send(request: dict[str, Any]) -> dict[str, Any]:
            async with slots:
                return await ask(http, request)

        return await asyncio.gather(*map(send, requests))


def thinking_count(gateway: Gateway, name: str) -> int:
    """Count a choice's thinking tokens from their bytes: those with no part of a marker."""
    recording = gateway.engine.recordings[name]
    pieces = [token_bytes(token) for token in recording.tokens]
    budget = recording.job.budget
    blocks = thinking_blocks(b"".join(pieces), opened=budget.opened, once=budget.bound)
    position = count = 0
    for piece in pieces:
        after = position + len(piece)
        count += any(begin <= position and after <= end for begin, end in blocks)
        position = after
    return count - sum(_tokens_of_partial_marker(pieces[:at]) for at in recording.record.attempts)


def thinking_blocks(text: bytes, *, opened: bool, once: bool) -> list[tuple[int, int]]:
    """Return where the thinking blocks of a text begin and end, without their markers.

    Args:
        text: what the model has generated.
        opened: whether the prompt ends inside a block.
        once: whether markers after the first block are part of the answer, as in structured output.
    """
    text = (START.encode() if opened else b"") + text
    shift = len(START) if opened else 0
    pattern = re.compile(rf"{START}(.*?)({END}|\Z)".encode(), re.DOTALL)
    found = [each.span(1) for each in pattern.finditer(text)]
    return [(begin - shift, end - shift) for begin, end in (found[:1] if once else found)]


def _tokens_of_partial_marker(pieces: list[bytes]) -> int:
    """Return how many of the last tokens contain the beginning of an end marker, if any does."""
    text = b"".join(pieces)
    lengths = range(len(END) - 1, -1, -1)
    rest = next(length for length in lengths if text.endswith(END[:length].encode()))
    tokens = 0
    while rest > 0:
        tokens += 1
        rest -= len(pieces[-tokens])
    return tokens


def token_bytes(token: int) -> bytes:
    spelled = tokenizer().convert_ids_to_tokens(token)
    return bytes(byte_of()[character] for character in spelled)


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL)


@cache
def byte_of() -> dict[str, int]:
    """Return the byte for each character of a byte-level vocabulary."""
    characters: dict[int, str] = bytes_to_unicode()
    return {character: byte for byte, character in characters.items()}
