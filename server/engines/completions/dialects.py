"""How to ask a completions server for a round, and how to read tokens from what it streams.

Servers differ in whether they give the ids of the tokens that they sample.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from proctor.budget import DesyncError, Markers
from proctor.server.engines.completions.resubmit import ResubmitStep
from proctor.server.errors import EngineUnavailable

MOST_CHARACTERS = 1024
"""To a token, and more than any real one has: beyond it a server counts no tokens."""

LEAST_ASKED = 8
"""Tokens to ask for where text comes back: fewer may be less than a character."""


@dataclass(frozen=True, slots=True)
class StreamedTokens:
    """What a server streamed at once.

    Attributes:
        text: without a stop at which it ended.
        token_ids: None from a server that gives none.
        finish: `stop` or `length`, in the last piece.
    """

    text: str = ""
    token_ids: list[int] | None = None
    finish: str | None = None


class Reader(Protocol):
    """Makes token ids of the pieces of one round."""

    def read(self, piece: StreamedTokens) -> list[int]:
        """Tokens that are certain now; all of them, once there is a finish."""


class Dialect(Protocol):
    """What a kind of server wants and gives."""

    def fields(self, asked: ResubmitStep) -> dict[str, Any]:
        """Request fields of this dialect."""

    def reader(self, asked: ResubmitStep) -> Reader:
        """A reader for one round."""


class TokenIdDialect:
    """A server that gives token ids, as vLLM does for `return_token_ids`."""

    def __init__(self, markers: Markers) -> None:
        # A marker of several tokens cannot be stopped at by ids: the stream is cut there.
        self._stops = list(markers.end) if len(markers.end) == 1 else []

    def fields(self, asked: ResubmitStep) -> dict[str, Any]:
        """See `Dialect`."""
        return {
            "max_tokens": asked.max_tokens,
            "return_token_ids": True,
            "stop_token_ids": self._stops if asked.suppresses_close else [],
        }

    def reader(self, asked: ResubmitStep) -> "TokenIdDialect":
        """See `Dialect`."""
        return self

    def read(self, piece: StreamedTokens) -> list[int]:
        """See `Reader`.

        Raises:
            EngineUnavailable: if there are no ids although there is text.
        """
        if piece.token_ids is None and piece.text:
            raise EngineUnavailable("the completions server left out the token ids")
        return piece.token_ids or []


class TextDialect:
    """A server that gives text alone; its tokens are had by encoding the text again."""

    def __init__(self, end_text: str, encode: Callable[[str], list[int]]) -> None:
        self._end_text = end_text
        self._encode = encode

    def fields(self, asked: ResubmitStep) -> dict[str, Any]:
        """See `Dialect`."""
        return {
            "max_tokens": max(asked.max_tokens, LEAST_ASKED),
            "skip_special_tokens": False,
            "stop": [self._end_text] if asked.suppresses_close else [],
        }

    def reader(self, asked: ResubmitStep) -> "TextReader":
        """See `Dialect`."""
        return TextReader(self._encode, MOST_CHARACTERS * max(asked.max_tokens, LEAST_ASKED))


class TextReader:
    """Encodes a text that comes piece by piece, up to the last end of a word.

    Tokenizers join no word to the space after it, so the cut changes no token.
    """

    def __init__(self, encode: Callable[[str], list[int]], most: int) -> None:
        self._encode = encode
        self._left = most
        self._held = ""

    def read(self, piece: StreamedTokens) -> list[int]:
        """See `Reader`.

        Raises:
            DesyncError: if there is far more text than was asked for.
        """
        self._left -= len(piece.text)
        if self._left < 0:
            raise DesyncError("the completions server does not keep to max_tokens")
        text = self._held + piece.text
        certain = len(text) if piece.finish else _last_end_of_word(text)
        self._held = text[certain:]
        return self._encode(text[:certain]) if certain else []


def _last_end_of_word(text: str) -> int:
    return max((found.end() for found in re.finditer(r"\S(?=\s)", text)), default=0)
