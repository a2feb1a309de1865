"""What an answer may be bound to, and how tool calls are read out of it: the seam's second half."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Protocol


class Kind(StrEnum):
    """What an answer can be bound to, by vLLM's names."""

    JSON = "json"
    JSON_OBJECT = "json_object"
    REGEX = "regex"
    CHOICE = "choice"
    GRAMMAR = "grammar"
    STRUCTURAL_TAG = "structural_tag"


@dataclass(frozen=True)
class Constraint:
    """What an answer is bound to; the thinking before it is not.

    Attributes:
        kind: which of the ways to say it.
        value: a JSON schema, True, a regular expression, a list of texts, a
            grammar in EBNF or Lark, or xgrammar's structural tag in JSON.
        field: the request's field that asked for it.
    """

    kind: Kind
    value: Any
    field: str

    @cached_property
    def digest(self) -> bytes:
        """What two of them share that bind alike. The order of a schema's members counts.

        Raises:
            RecursionError: if it is nested too deeply.
        """
        return hashlib.sha256(json.dumps([self.kind.value, self.value]).encode()).digest()


@dataclass(frozen=True, slots=True)
class CallDelta:
    """Some of a tool call.

    Attributes:
        index: which of the answer's calls.
        id: the call's id, with its first delta alone.
        name: the function's name, with its first delta alone.
        arguments: the next piece of its arguments' JSON.
    """

    index: int
    id: str | None
    name: str | None
    arguments: str


class CallReader(Protocol):
    """Takes tool calls out of one answer, token by token."""

    def push(self, text: str, token_ids: Sequence[int]) -> Sequence[str | CallDelta]:
        """The content and the calls that are certain after this text, special tokens spelled."""

    def close(self, *, cut: bool) -> Sequence[str | CallDelta]:
        """What was held back, because no text follows.

        Args:
            cut: whether the answer was cut for want of tokens.
        """


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """What a request wants of its tools.

    Attributes:
        tools: OpenAI's tools, as plain data.
        mode: "auto" or "required"; or "named", with `name`.
        name: the function that must be called.
        parallel: whether there may be several calls.
        constraint: what the answer is bound to if it is no call.
    """

    tools: tuple[Mapping[str, Any], ...]
    mode: str
    name: str | None
    parallel: bool
    constraint: Constraint | None


@dataclass(frozen=True, slots=True)
class BoundTools:
    """A request's tools in a model's own format.

    Attributes:
        constraint: what the answer is bound to, so that calls come out well formed.
        reader: makes a reader of one answer.
    """

    constraint: Constraint | None
    reader: Callable[[], CallReader]


class ToolFormat(Protocol):
    """How a model writes tool calls."""

    def bind(self, choice: ToolChoice) -> BoundTools:
        """See `BoundTools`.

        Raises:
            UnsupportedRequest: if the format cannot do what is wanted.
        """
