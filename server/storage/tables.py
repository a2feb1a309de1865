"""The tables of the ledger's database, and their column types."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    false,
)
from sqlalchemy.types import TypeDecorator, TypeEngine


class Money(TypeDecorator[Decimal]):
    """An exact decimal: `NUMERIC`, or text in SQLite, which has no exact decimals."""

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        exact = String(64) if dialect.name == "sqlite" else Numeric(asdecimal=True)
        return dialect.type_descriptor(exact)

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        return f"{value:f}" if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class Utc(TypeDecorator[datetime]):
    """A time, always in UTC, since SQLite does not store time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

requests = Table(
    "requests",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("request_id", String(128), nullable=False),
    Column("time", Utc, nullable=False),
    Column("key", String(128)),
    Column("model", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("tier", String(32), nullable=False),
    Column("source", String(16), nullable=False),
    Column("asked_min_tokens", BigInteger, nullable=False),
    Column("asked_max_tokens", BigInteger),
    Column("min_tokens", BigInteger, nullable=False),
    Column("max_tokens", BigInteger),
    Column("clamped_by", Text, nullable=False),
    Column("choices", Integer, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger),
    Column("thinking_tokens", BigInteger, nullable=False),
    Column("forced_tokens", BigInteger, nullable=False),
    Column("answer_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("continuations", BigInteger, nullable=False),
    Column("end_reason", String(16), nullable=False),
    Column("finish_reason", String(16), nullable=False),
    Column("first_reasoning_seconds", Double),
    Column("first_answer_seconds", Double),
    Column("seconds", Double, nullable=False),
    Column("currency", String(3)),
    Column("cost_prompt", Money),
    Column("cost_thinking", Money),
    Column("cost_answer", Money),
    Column("score", Double),
    Column("estimated", Boolean, nullable=False, server_default=false()),
    Column("session", String(128)),
    Column("probe_tokens", BigInteger, nullable=False, server_default="0"),
    Index("requests_time", "time"),
    Index("requests_key_time", "key", "time"),
    Index("requests_request_id", "request_id"),
)

texts = Table(
    "texts",
    metadata,
    Column("id", String(64), ForeignKey("requests.id", ondelete="CASCADE"), primary_key=True),
    Column("request", Text, nullable=False),
    Column("thinking", Text, nullable=False),
    Column("answer", Text, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(8), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("scope", String(8), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("limits", Text, nullable=False),
    Column("created", Utc, nullable=False),
    Column("revoked", Utc),
)

holds = Table(
    "holds",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("key", String(128), nullable=False),
    Column("gateway", String(32), nullable=False),
    Column("placed", Utc, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("nanos", BigInteger, nullable=False),
    Column("settled", Boolean, nullable=False, server_default=false()),
    Column("draft", Text),
    Column("session", String(128)),
    Column("tier", String(32)),
    Column("thinking", BigInteger, nullable=False, server_default="0"),
    Index("holds_key", "key"),
    Index("holds_gateway", "gateway"),
    Index("holds_session", "key", "session"),
)

gateways = Table(
    "gateways",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("host", String(128), nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("birth", BigInteger, nullable=False),
    Column("beat", BigInteger, nullable=False),
)

spend = Table(
    "spend",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("nanos", BigInteger, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("id", String(128), primary_key=True),
    Column("created", Utc, nullable=False),
    Column("requested", Text, nullable=False),
    Column("limits", Text, nullable=False),
)

session_usage = Table(
    "session_usage",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("session", String(128), primary_key=True),
    Column("tier", String(32), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("thinking_tokens", BigInteger, nullable=False),
    Column("answer_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("nanos", BigInteger, nullable=False),
    Column("thinking_nanos", BigInteger, nullable=False),
    Column("answer_nanos", BigInteger, nullable=False),
    Column("first", Utc, nullable=False),
    Column("last", Utc, nullable=False),
    Index("session_usage_last", "last"),
)

replays = Table(
    "replays",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("media_type", String(64)),
    Column("tier", String(32), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("gateway", String(32)),
    Column("expires", Utc),
    Index("replays_expires", "expires"),
    Index("replays_gateway", "gateway"),
)

record_secrets = Table(
    "record_secrets",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("secret", LargeBinary, nullable=False),
    Column("created", Utc, nullable=False),
    Column("expires", Utc),
)

responses = Table(
    "responses",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("key", String(128), nullable=False),
    Column("status", String(16), nullable=False),
    Column("input", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("gateway", String(32)),
    Column("expires", Utc),
    Index("responses_expires", "expires"),
    Index("responses_gateway", "gateway"),
)

response_events = Table(
    "response_events",
    metadata,
    Column("id", String(64), ForeignKey("responses.id", ondelete="CASCADE"), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)
