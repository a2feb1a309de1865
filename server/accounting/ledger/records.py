"""The record of a request in the ledger, and its draft while the request runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Protocol

from pydantic import TypeAdapter

from proctor.server.pricing import Cost
from proctor.server.storage.tables import requests

MIXED = "mixed"
"""Stands for the reason if the choices of a request have different ones."""

NOT_STARTED = "none"
"""Stands for the reason if no choice was started."""


@dataclass(frozen=True, slots=True)
class RecordedTexts:
    """The texts of a request, which are only stored if the setting `ledger.texts` is on.

    Attributes:
        request: the messages and tools, as JSON.
        thinking: the thinking of all choices, concatenated.
        answer: the answers of all choices, concatenated.
    """

    request: str
    thinking: str
    answer: str


@dataclass(frozen=True, slots=True)
class LedgerRecord:
    """The record of one admitted request: finished, failed or cancelled.

    Attributes:
        id: the completion's id, as in the response.
        request_id: the `x-request-id`, which a client may repeat.
        time: when the request was received, in UTC.
        key: the name of its key, or None if no keys are required.
        model: the name of the model.
        status: the HTTP status: 499 if the client disconnected; if a response broke off
            after it had begun, that of the error.
        tier: the name of the tier, or "custom".
        source: what selected the tier: "explicit", "effort", "router" or "default".
        asked_min_tokens: the minimum of the budget before clamping.
        asked_max_tokens: the maximum of the budget before clamping, or None for no cap.
        min_tokens: the enforced minimum.
        max_tokens: the enforced maximum.
        clamped_by: what clamped the budget, comma-separated; empty if nothing did.
        choices: the number of choices. The fields below are of all choices together.
        prompt_tokens: the number of tokens in the prompt, which the choices share.
        cached_tokens: the number of prompt tokens read from the engine's cache, or None
            if the engine does not report it.
        thinking_tokens: the number of thinking tokens, without markers, probes included.
        forced_tokens: the number of tokens that the server forced.
        answer_tokens: the number of answer tokens.
        completion_tokens: the number of generated tokens, markers and end of turn included.
        continuations: the number of rejected attempts to close the thinking.
        end_reason: why the thinking ended.
        finish_reason: why generation ended; "abort" if it was cancelled or failed.
        first_reasoning_seconds: the time from the request to the first thinking.
        first_answer_seconds: the time from the request to the first text of the answer.
        seconds: the duration of the request.
        cost: the cost, or None if there are no prices.
        score: the score of the answer from feedback, from 0 to 1.
        estimated: whether the gateway was lost while the request ran, so that the record
            is the last draft of the gateway.
        session: the ID of its session, or None if the request names none.
        probe_tokens: the number of tokens of probes for an early exit.
        texts: the texts of the request, if they are stored.
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
    session: str | None = None
    probe_tokens: int = 0
    texts: RecordedTexts | None = None

    def to_json(self) -> str:
        """Serialize the record to JSON."""
        return _adapter().dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> "LedgerRecord":
        """Deserialize a record from the JSON of `to_json`."""
        return _adapter().validate_json(text)


@cache
def _adapter() -> TypeAdapter[LedgerRecord]:
    return TypeAdapter(LedgerRecord)


@dataclass(frozen=True, slots=True)
class ReservedAmount:
    """The part of the limits of a key and a session that is reserved for a request.

    Attributes:
        tokens: the tokens of the prompt and of all answers.
        nanos: the cost, in billionths of the currency; 0 if there are no prices.
        thinking: the thinking tokens of all choices.
    """

    tokens: int
    nanos: int
    thinking: int = 0


@dataclass(frozen=True, slots=True)
class DraftRecord:
    """The draft of a running request's record.

    Attributes:
        record: the record as if the request had ended now.
        reserved: what is reserved for the request.
    """

    record: LedgerRecord
    reserved: ReservedAmount


class RecordSink(Protocol):
    """Receives the records of requests."""

    def begin(self, record_id: str, draft: Callable[[], DraftRecord]) -> None:
        """Register a running request, until its record is `put`.

        Args:
            record_id: the `id` of its record.
            draft: returns the draft of its record as of now.
        """

    def put(self, record: LedgerRecord) -> None:
        """Add a record, without blocking."""


COST_COLUMNS = ("currency", "cost_prompt", "cost_thinking", "cost_answer")


SHARED_COLUMNS = tuple(
    column.name for column in requests.columns if column.name not in COST_COLUMNS
)
"""The columns that are named like the attributes of `LedgerRecord`."""


NUL = "\0"
"""Removed from texts, since databases do not support it there."""


def to_columns(record: LedgerRecord) -> dict[str, Any]:
    """Return a record as a row of the table `requests`."""
    cost = record.cost
    columns = {name: getattr(record, name) for name in SHARED_COLUMNS}
    parts = (
        (None,) * len(COST_COLUMNS)
        if cost is None
        else (cost.currency, cost.prompt, cost.thinking, cost.answer)
    )
    return columns | dict(zip(COST_COLUMNS, parts, strict=True))


def text_columns(record: LedgerRecord, texts: RecordedTexts) -> dict[str, str]:
    """Return the texts of a record as a row of the table `texts`."""
    columns = {"request": texts.request, "thinking": texts.thinking, "answer": texts.answer}
    return {"id": record.id} | {name: text.replace(NUL, "") for name, text in columns.items()}


def from_columns(columns: Mapping[str, Any]) -> LedgerRecord:
    """Return the record of a row of the table `requests`, without texts."""
    currency, *parts = (columns[name] for name in COST_COLUMNS)
    cost = None if currency is None else Cost(currency, *parts)
    return LedgerRecord(**{name: columns[name] for name in SHARED_COLUMNS}, cost=cost)
