"""One row of the ledger, and what is known of it while its request runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Protocol

from pydantic import TypeAdapter

from proctor.server.pricing import Cost
from proctor.server.storage.tables import requests

MIXED = "mixed"
"""In the place of a reason, where a request's choices had different ones."""

NOT_STARTED = "none"
"""In the place of a reason, where no choice had begun."""


@dataclass(frozen=True, slots=True)
class RecordedTexts:
    """What was said; kept only where the operator turned it on.

    Attributes:
        request: the messages and tools, as JSON.
        thinking: of all choices, one after the other.
        answer: likewise.
    """

    request: str
    thinking: str
    answer: str


@dataclass(frozen=True, slots=True)
class LedgerRecord:
    """One request that was let in: finished, failed or cancelled.

    Attributes:
        id: the completion's id, as the response gives it.
        request_id: the `x-request-id`, which a client may use twice.
        time: when the request came, UTC.
        key: whose it was, None where no keys are asked for.
        model: the model's name.
        status: the HTTP status; 499 if the client went away, and what broke the
            answer off where it had begun.
        tier: the tier's name, or "custom".
        source: what decided it: "explicit", "effort", "router" or "default".
        asked_min_tokens: the budget before anything cut it.
        asked_max_tokens: likewise; None is no cap.
        min_tokens: the budget that held.
        max_tokens: likewise.
        clamped_by: what cut it, by comma; empty if nothing did.
        choices: how many answers were asked for. What follows is of all of them.
        prompt_tokens: of the prompt, which they share.
        cached_tokens: those of them that the engine had in its cache, if it says.
        thinking_tokens: markers excluded.
        forced_tokens: tokens that the server chose.
        answer_tokens: of the answers.
        completion_tokens: everything generated, markers and ends of turn too.
        continuations: attempts to close that were turned down.
        end_reason: why the thinking ended.
        finish_reason: why generation ended; "abort" if it was cut short from outside.
        first_reasoning_seconds: from the request to the first thinking.
        first_answer_seconds: from the request to the first of the answer.
        seconds: from the request to its end.
        cost: by its parts; None where no price was set.
        score: how right it was, from 0 to 1, as feedback said.
        estimated: whether its gateway was lost while it ran, so that it is as of the last
            time that the gateway told.
        texts: what was said, where that is kept.
    """

    id: str
    request_id: str
    time: datetime
    key: str | None
    model: str
    status: int
    tier: str
    source: str
    asked_min_tokens: int
    asked_max_tokens: int | None
    min_tokens: int
    max_tokens: int | None
    clamped_by: str
    choices: int
    prompt_tokens: int
    cached_tokens: int | None
    thinking_tokens: int
    forced_tokens: int
    answer_tokens: int
    completion_tokens: int
    continuations: int
    end_reason: str
    finish_reason: str
    first_reasoning_seconds: float | None
    first_answer_seconds: float | None
    seconds: float
    cost: Cost | None
    score: float | None = None
    estimated: bool = False
    texts: RecordedTexts | None = None

    def to_json(self) -> str:
        """Write it down, to be read by `from_json`."""
        return _rows().dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> "LedgerRecord":
        """Read what `to_json` wrote."""
        return _rows().validate_json(text)


@cache
def _rows() -> TypeAdapter[LedgerRecord]:
    return TypeAdapter(LedgerRecord)


@dataclass(frozen=True, slots=True)
class ReservedAmount:
    """What one request took, once all its choices have ended.

    Attributes:
        tokens: of the prompt and of all its answers.
        nanos: billionths of the currency; 0 where no price is known.
    """

    tokens: int
    nanos: int


@dataclass(frozen=True, slots=True)
class DraftRecord:
    """A request that runs.

    Attributes:
        row: as it would be if it ended now.
        held: back for it, of what its key has left.
    """

    row: LedgerRecord
    held: ReservedAmount


class RecordSink(Protocol):
    """Receives the records of requests."""

    def begin(self, row_id: str, draft: Callable[[], DraftRecord]) -> None:
        """Register a request that runs, until its record is `put`.

        Args:
            row_id: the `id` of its record.
            draft: returns what is known of it now.
        """

    def put(self, row: LedgerRecord) -> None:
        """Add a record; never blocks."""


COSTS = ("currency", "cost_prompt", "cost_thinking", "cost_answer")


PLAIN = tuple(column.name for column in requests.columns if column.name not in COSTS)
"""Columns that a `LedgerRecord` has under the same name."""


NUL = "\0"
"""No database takes it in a text."""


def to_columns(row: LedgerRecord) -> dict[str, Any]:
    """A row as `requests` has it."""
    cost = row.cost
    columns = {name: getattr(row, name) for name in PLAIN}
    parts = (
        (None,) * len(COSTS)
        if cost is None
        else (cost.currency, cost.prompt, cost.thinking, cost.answer)
    )
    return columns | dict(zip(COSTS, parts, strict=True))


def text_columns(row: LedgerRecord, said: RecordedTexts) -> dict[str, str]:
    """What was said, as `texts` has it."""
    columns = {"request": said.request, "thinking": said.thinking, "answer": said.answer}
    return {"id": row.id} | {name: text.replace(NUL, "") for name, text in columns.items()}


def from_columns(columns: Mapping[str, Any]) -> LedgerRecord:
    """The row of some columns of `requests`; without what was said."""
    currency, *parts = (columns[name] for name in COSTS)
    cost = None if currency is None else Cost(currency, *parts)
    return LedgerRecord(**{name: columns[name] for name in PLAIN}, cost=cost)
