"""Settings of access control: API keys, their limits, and CORS."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import (
    Field,
    SecretStr,
)

from proctor.server.config.section import Section
from proctor.server.config.sessions import KeySession

Origin = Annotated[str, Field(pattern=r"^(\*|null|[a-z][a-z0-9+.-]*://[^/\s*]+)$")]


class Cors(Section):
    """The origins of web pages that may use the server.

    Attributes:
        allow_origins: the allowed origins, as browsers write them, such as
            "https://chat.example.com"; "*" allows all.
        allow_loopback: whether pages served by the browser's own machine are allowed.
    """

    allow_origins: tuple[Origin, ...] = ()
    allow_loopback: bool = True


class Scope(StrEnum):
    """The scope of an API key; "admin" adds the metrics."""

    USER = "user"
    ADMIN = "admin"


class KeyLimits(Section):
    """The limits of an API key; None sets no limit.

    Attributes:
        max_thinking_tokens: the maximum number of thinking tokens of a choice. Larger
            budgets are clamped, and the response says so.
        tier: the highest tier; higher ones are clamped likewise.
        models: the names of the model that requests may use; empty allows all.
        requests_per_minute: the maximum number of requests in any 60 seconds.
        tokens_per_minute: the maximum number of tokens of prompts and answers in any 60
            seconds, counted from when a request is received; a running request counts
            with the maximum that it may use.
        per_day: the spending limit per day (UTC).
        per_month: the spending limit per month (UTC).
        session: the limits of each session.
    """

    max_thinking_tokens: Annotated[int, Field(ge=0)] | None = None
    tier: str | None = None
    models: tuple[str, ...] = ()
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    per_day: Annotated[Decimal, Field(gt=0, lt=10**9)] | None = None
    per_month: Annotated[Decimal, Field(gt=0, lt=10**9)] | None = None
    session: KeySession = KeySession()

    @property
    def spending(self) -> bool:
        """Whether spending is limited."""
        return self.per_day is not None or self.per_month is not None

    @property
    def counted(self) -> bool:
        """Whether the key has limits that depend on its usage so far."""
        rates = (self.requests_per_minute, self.tokens_per_minute)
        return self.spending or any(rate is not None for rate in rates)


KeyName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]


class ConfiguredKey(KeyLimits):
    """An API key in the settings, as printed by `proctor keys create --print`.

    Attributes:
        name: the name of the key in the ledger.
        hash: the ID of the key and the SHA-256 of its token, in hexadecimal.
        scope: the scope of the key.
    """

    name: KeyName
    hash: Annotated[str, Field(pattern="^[0-9a-f]{8}:[0-9a-f]{64}$")]
    scope: Scope = Scope.USER


RecordSecret = Annotated[SecretStr, Field(min_length=32)]


class Auth(Section):
    """Settings of authentication.

    Attributes:
        required: whether requests must have an API key; None requires one if the
            settings have keys, or if the server does not bind to a loopback address.
        admin_port: a separate port that serves the metrics, without authentication;
            None serves them on the server's own port, where they need a key with the
            scope "admin" if keys are required.
        admin_host: the address that the separate port binds to.
        record_secrets: the secrets of the records of turns, the same on all gateways:
            the first protects new records, the others are still accepted. Empty keeps
            secrets in the ledger's database, or without a ledger makes one at each
            start.
    """

    required: bool | None = None
    admin_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    admin_host: str = "127.0.0.1"
    record_secrets: tuple[RecordSecret, ...] = ()
