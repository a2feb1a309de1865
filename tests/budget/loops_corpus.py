"""A labelled corpus for the loop detectors: traces that loop, and traces that only look like it.

The corpus is determined by its seed. The same texts are tokenized in two ways, because detection
depends on it: by the demo model's tokenizer, which spells most words in letters, and into words,
digits and punctuation, as in a large vocabulary.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

from tokenizers import Tokenizer

from proctor.budget.loops import WINDOW
from proctor.budget.vocabulary import weights_of
from proctor.demo.train import MODEL
from tests.budget.loops_texts import LOOPS, PROGRESS, mixed

DEMO_TRACES = Path(__file__).with_name("data") / "loops_demo.jsonl"
LOOP_LENGTH = 1400  # minimum tokens of a loop
LONGEST = 2400  # maximum tokens of a trace that does not loop


@dataclass(frozen=True)
class Trace:
    """A thinking trace.

    Attributes:
        family: the kind of text.
        tokens: its token ids.
        loop_at: index of the loop's first token; None if the trace does not loop.
        repeats_at: index of the first token of the second copy; tokens from here on are wasted.
    """

    family: str
    tokens: list[int]
    loop_at: int | None = None
    repeats_at: int | None = None


class Encoder(Protocol):
    """A tokenizer."""

    def encode(self, text: str) -> list[int]: ...

    def weights(self) -> bytes:
        """Return `weights_of` all tokens that have occurred."""


class ModelEncoder:
    """The tokenizer of a model; by default the demo's, of 448 entries."""

    def __init__(self, folder: Path = MODEL) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def weights(self) -> bytes:
        texts = (
            self._tokenizer.decode([token]) for token in range(self._tokenizer.get_vocab_size())
        )
        return weights_of([text.encode() for text in texts])


class WordEncoder:
    """Words with the space before them, single digits, and runs of punctuation."""

    PIECES = re.compile(r" ?[^\W\d_]+|\d| ?[^\w\s]+|_+|\n+|\s+(?= )|\s")

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        return [self._ids.setdefault(piece, len(self._ids)) for piece in self.PIECES.findall(text)]

    def weights(self) -> bytes:
        return weights_of([piece.encode() for piece in self._ids])


def corpus(seed: int, encoder: Encoder, progress: int, looping: int) -> Iterator[Trace]:
    """Yield `progress` traces that do not loop and `looping` traces that do, families in turn."""
    rng = Random(seed)
    for number in range(progress):
        family = [*PROGRESS][number % len(PROGRESS)]
        yield Trace(family, encoder.encode(PROGRESS[family](rng))[:LONGEST])
    for number in range(looping):
        family = ["verbatim", *LOOPS][number % (len(LOOPS) + 1)]
        yield (
            exact_loop(rng, encoder) if family == "verbatim" else inexact_loop(rng, encoder, family)
        )


def inexact_loop(rng: Random, encoder: Encoder, family: str) -> Trace:
    """Return a trace that makes progress, then loops in copies no longer than `WINDOW`."""
    before, loop = progress_before(rng, encoder), list[int]()
    while not 0 < len(loop) <= WINDOW:
        copies = LOOPS[family](rng)
        loop = encoder.encode(next(copies))
    repeats_at = len(before) + len(loop)
    while len(loop) < LOOP_LENGTH:
        loop += encoder.encode(next(copies))
    return Trace(family, before + loop, len(before), repeats_at)


def exact_loop(rng: Random, encoder: Encoder) -> Trace:
    """Return a trace that repeats the same tokens; periods up to `WINDOW` are equally likely."""
    before, period, text = progress_before(rng, encoder), rng.randint(1, WINDOW), list[int]()
    while len(text) < period:
        text += encoder.encode(mixed(rng))
    at = rng.randint(0, len(text) - period)
    loop = text[at : at + period] * (LOOP_LENGTH // period + 1)
    return Trace("verbatim", before + loop, len(before), len(before) + period)


def progress_before(rng: Random, encoder: Encoder) -> list[int]:
    return encoder.encode(mixed(rng))[: rng.choice((0, 20, 100, 300, 600))]


def demo_traces() -> Iterator[Trace]:
    """Yield traces of the demo model in its own tokens, some far past its budget.

    Generated once with continuations of several texts until 1,500 tokens, greedily and at
    temperature 0.6. A loop begins at the first verdict (`so 42`, `all ok 42`, `not a chain`) that
    is followed by another without working between them.
    """
    encoder = ModelEncoder()
    for line in DEMO_TRACES.read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        tokens = encoder.encode(found["text"])
        if found["loop_at"] is None:
            yield Trace("demo model", tokens)
        else:
            begin, again = (
                len(encoder.encode(found["text"][: found[mark]]))
                for mark in ("loop_at", "repeats_at")
            )
            yield Trace("demo model, driven on", tokens, begin, again)


def read(paths: list[Path], encoder: Encoder, length: int) -> Iterator[Trace]:
    """Yield traces of at most `length` tokens from files of text that does not loop."""
    for path in paths:
        tokens = encoder.encode(path.read_text(encoding="utf-8", errors="replace"))
        for begin in range(0, len(tokens), length):
            yield Trace(path.suffix or path.name, tokens[begin : begin + length])
