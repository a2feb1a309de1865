"""Splits texts into tokens: a model's, or words where no model is named."""

import re
from collections.abc import Sequence
from typing import Protocol

from proctor.budget.vocabulary import weights_of

WORD = re.compile(r"\w+|[^\w\s]|\n+")
"""A word, a mark of punctuation, or the ends of lines."""


class Tokens(Protocol):
    """Splits texts into tokens.

    Attributes:
        unit: what a token is, for messages: `tokens` or `words`.
    """

    unit: str

    def count(self, text: str) -> int:
        """Return the number of tokens of a text."""

    def encode(self, text: str) -> tuple[Sequence[int], bytes]:
        """Return the ids of a text's tokens, and the weight in loop detection of each id."""


class Words:
    """Words in place of tokens; ids are numbered anew in each text."""

    unit = "words"

    def count(self, text: str) -> int:
        """Return the number of words between whitespace."""
        return len(text.split())

    def encode(self, text: str) -> tuple[Sequence[int], bytes]:
        """Return ids of words, punctuation and line ends, and the weight of each id."""
        words = WORD.findall(text)
        ids = {word: index for index, word in enumerate(dict.fromkeys(words))}
        return [ids[word] for word in words], weights_of([word.encode() for word in ids])
