"""A gateway over SmolLM2-135M-Instruct: a real vocabulary, with markers of several tokens."""

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.engine.gateway import TIERS, Gateway, running_gateway
from tests.requirements import require

MODEL = Path(sys.prefix) / "real-model" / "model"
"""Made by `make .venv/real-model/.made` (see demo/smollm2.py)."""

START, END = "<think>", "</think>"

ENGINE = {
    "max_model_len": 2048,
    "max_num_seqs": 16,
    "enforce_eager": True,
    "kv_cache_memory_bytes": 2**28,
}

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


@pytest.fixture(scope="session")
def real_gateway() -> Iterator[Gateway]:
    """A gateway over the pretrained model, on a loopback port."""
    require(MODEL.exists(), "the pretrained model")
    with running_gateway(
        model=str(MODEL), thinking_start=START, thinking_end=END, engine=ENGINE, tiers=TIERS
    ) as gateway:
        yield gateway


def thinking_count(gateway: Gateway, name: str) -> int:
    """Count a choice's thinking tokens from their bytes: those that begin before the end marker."""
    recording = gateway.engine.recordings[name]
    pieces = [token_bytes(token) for token in recording.tokens]
    text = b"".join(pieces)
    begin = 0
    if not recording.job.budget.opened:
        found = text.find(START.encode())
        if found < 0:
            return 0
        begin = found + len(START)
    end = text.find(END.encode(), begin)
    position = count = 0
    for piece in pieces:
        count += position >= begin and (end < 0 or position < end)
        position += len(piece)
    return count


def token_bytes(token: int) -> bytes:
    spelled = tokenizer().convert_ids_to_tokens(token)
    return bytes(byte_of()[character] for character in spelled)


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL)


@cache
def byte_of() -> dict[str, int]:
    """Return the byte for each character of a byte-level vocabulary."""
    characters: dict[int, str] = bytes_to_unicode()  # type: ignore[no-untyped-call]
    return {character: byte for byte, character in characters.items()}
