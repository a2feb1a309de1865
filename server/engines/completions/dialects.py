"""Dialects of the completions API: with token ids in the stream, or with text only."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from proctor.budget import DesyncError, Markers
from proctor.server.engines.completions.resubmit import ResubmitStep
from proctor.server.errors import EngineUnavailable

MAX_TOKEN_CHARACTERS = 1024
"""Characters per token, more than any real token has. A server that sends more ignores
`max_tokens`."""

MIN_MAX_TOKENS = 8
"""The smallest `max_tokens` to request where only text comes back: fewer tokens may not complete a
character."""


@dataclass(frozen=True, slots=True)
class StreamedTokens:
    """One event of a completion stream.

    Attributes:
        text: without the stop string at which it ended.
        token_ids: None from a server that does not return token ids.
        finish: `stop` or `length`; only set on the last event.
    """

    text: str = ""
    token_ids: list[int] | None = None
    finish: str | None = None


class Reader(Protocol):
    """Converts the events of one completion to token ids."""

    def read(self, event: StreamedTokens) -> list[int]:
        """Return the tokens that are certain now; with a finish reason, all that remain."""


class Dialect(Protocol):
    """The request fields and the response format of a kind of server."""

    def fields(self, step: ResubmitStep) -> dict[str, Any]:
        """Return the request fields that this dialect needs."""

    def reader(self, step: ResubmitStep) -> Reader:
        """Return a reader for the completion of one step."""


class TokenIdDialect:
    """The dialect of a server that returns token ids, as vLLM does for `return_token_ids`."""

    def __init__(self, markers: Markers) -> None:
        # `stop_token_ids` cannot express a marker of several tokens: the stream is cut there.
        self._stops = list(markers.end) if len(markers.end) == 1 else []

    def fields(self, step: ResubmitStep) -> dict[str, Any]:
        return {
            "max_tokens": step.max_tokens,
            "return_token_ids": True,
            "stop_token_ids": self._stops if step.suppresses_close else [],
        }

    def reader(self, step: ResubmitStep) -> "TokenIdDialect":
        return self

    def read(self, event: StreamedTokens) -> list[int]:
        """Return the tokens of the event.

        Raises:
            EngineUnavailable: if it has text but no token ids.
        """
        if event.token_ids is None and event.text:
            raise EngineUnavailable("the completions server omitted the token ids")
        return event.token_ids or []


class TextDialect:
    """The dialect of a server that returns text only, which is tokenized again here."""

    def __init__(self, end_text: str, encode: Callable[[str], list[int]]) -> None:
        self._end_text = end_text
        self._encode = encode

    def fields(self, step: ResubmitStep) -> dict[str, Any]:
        return {
            "max_tokens": max(step.max_tokens, MIN_MAX_TOKENS),
            "skip_special_tokens": False,
            "stop": [self._end_text] if step.suppresses_close else [],
        }

    def reader(self, step: ResubmitStep) -> "TextReader":
        max_tokens = max(step.max_tokens, MIN_MAX_TOKENS)
        return TextReader(self._encode, MAX_TOKEN_CHARACTERS * max_tokens)


class TextReader:
    """Tokenizes streamed text, up to the end of the last complete word.

    No tokenizer merges a word with the space after it, so cutting there changes no token.
    """

    def __init__(self, encode: Callable[[str], list[int]], max_characters: int) -> None:
        self._encode = encode
        self._remaining = max_characters
        self._buffer = ""

    def read(self, event: StreamedTokens) -> list[int]:
        """Return the tokens of the words that the event completes.

        Raises:
            DesyncError: if there is far more text than `max_tokens` allows.
        """
        self._remaining -= len(event.text)
        if self._remaining < 0:
            raise DesyncError("the completions server does not respect max_tokens")
        text = self._buffer + event.text
        cut = len(text) if event.finish else _last_end_of_word(text)
        self._buffer = text[cut:]
        return self._encode(text[:cut]) if cut else []


def _last_end_of_word(text: str) -> int:
    return max((match.end() for match in re.finditer(r"\S(?=\s)", text)), default=0)
