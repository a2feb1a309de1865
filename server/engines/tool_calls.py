"""The engine interface for structured output and tool calls."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Protocol

MAX_PATTERN = 4096
"""Characters of a regular expression. The longest in wide use, for URLs and dates, have 500."""


class Kind(StrEnum):
    """The kinds of structured output, by the names of vLLM's `StructuredOutputsParams`."""

    JSON = "json"
    JSON_OBJECT = "json_object"
    REGEX = "regex"
    CHOICE = "choice"
    GRAMMAR = "grammar"
    STRUCTURAL_TAG = "structural_tag"


@dataclass(frozen=True)
class Constraint:
    """The structured output that an answer must match; the thinking before it is free.

    Attributes:
        kind: how `value` describes it.
        value: a JSON schema, True (any JSON object), a regular expression, a list of texts, a
            grammar in EBNF or Lark, or xgrammar's structural tag in JSON.
        field: the request's field that asked for it.
    """

    kind: Kind
    value: Any
    field: str

    @cached_property
    def digest(self) -> bytes:
        """A hash of kind and value. The order of a schema's members matters.

        Raises:
            RecursionError: if the value is nested too deeply.
        """
        return hashlib.sha256(json.dumps([self.kind.value, self.value]).encode()).digest()


@dataclass(frozen=True, slots=True)
class CallDelta:
    """A fragment of a tool call.

    Attributes:
        index: position of the call among those of the answer.
        id: the call's id; only set on its first delta.
        name: the function's name; only set on its first delta.
        arguments: the next fragment of its arguments in JSON.
    """

    index: int
    id: str | None
    name: str | None
    arguments: str


class CallReader(Protocol):
    """A streaming parser that separates one answer into content and tool calls."""

    def push(self, text: str, token_ids: Sequence[int]) -> Sequence[str | CallDelta]:
        """Add text and return the content and calls that are certain now.

        Args:
            text: the next text of the answer, special tokens spelled out.
            token_ids: the tokens of that text.
        """

    def close(self, *, cut: bool) -> Sequence[str | CallDelta]:
        """Return the content and calls held back so far; no text follows.

        Args:
            cut: whether the answer was truncated at `max_tokens`.
        """


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """The tools of a request and how the model may use them.

    Attributes:
        tools: OpenAI tools as plain data.
        mode: "auto", "required" or "named", the last with `name`.
        name: the function that must be called.
        parallel: whether the answer may have several calls.
        constraint: the structured output that an answer without calls must match.
    """

    tools: tuple[Mapping[str, Any], ...]
    mode: str
    name: str | None
    parallel: bool
    constraint: Constraint | None


@dataclass(frozen=True, slots=True)
class BoundTools:
    """The tools of a request in the model's tool call format.

    Attributes:
        constraint: the structured output that makes calls well-formed, or None.
        reader: returns a reader for one answer.
    """

    constraint: Constraint | None
    reader: Callable[[], CallReader]


class ToolFormat(Protocol):
    """A model's tool call format."""

    def bind(self, choice: ToolChoice) -> BoundTools:
        """Return the request's tools in this format.

        Raises:
            UnsupportedRequest: if the format does not support the choice.
        """
