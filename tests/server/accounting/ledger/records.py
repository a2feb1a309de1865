"""Records of the ledger for tests."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from proctor.server.accounting.ledger.records import LedgerRecord
from proctor.server.accounting.ledger.store import Store
from proctor.server.pricing import Cost
from proctor.server.storage.database import connect

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def make_cost(total: str, currency: str = "USD") -> Cost:
    return Cost(currency, Decimal(0), Decimal(total), Decimal(0))


def make_record(name: object, **fields: Any) -> LedgerRecord:
    """Return a record whose ids are derived from `name`, with `fields` over the defaults."""
    defaults: dict[str, Any] = {
        "id": f"chatcmpl-{name}",
        "request_id": f"request-{name}",
        "time": NOON,
        "key": None,
        "model": "fake",
        "status": 200,
        "tier": "low",
        "source": "router",
        "asked_min_tokens": 0,
        "asked_max_tokens": 512,
        "min_tokens": 0,
        "max_tokens": 512,
        "clamped_by": "",
        "choices": 1,
        "prompt_tokens": 10,
        "cached_tokens": None,
        "thinking_tokens": 30,
        "forced_tokens": 0,
        "answer_tokens": 10,
        "completion_tokens": 42,
        "continuations": 0,
        "end_reason": "natural",
        "finish_reason": "stop",
        "first_reasoning_seconds": 0.1,
        "first_answer_seconds": 0.2,
        "seconds": 0.3,
        "cost": None,
    }
    return LedgerRecord(**{**defaults, **fields})


async def read_records(url: str) -> list[LedgerRecord]:
    """Return all records of a ledger."""
    store = Store(connect(url, reads_only=True))
    try:
        return [record async for record in store.rows()]
    finally:
        await store.aclose()
