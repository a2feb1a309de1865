"""Settings of who may use the server: API keys, their limits, and web pages."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import (
    Field,
)

from proctor.server.config.section import Section

Origin = Annotated[str, Field(pattern=r"^(\*|null|[a-z][a-z0-9+.-]*://[^/\s*]+)$")]


class Cors(Section):
    """Which web pages of other origins may use the server.

    Attributes:
        allow_origins: as a browser writes them, like "https://chat.example.com";
            "*" is every page of the web.
        allow_loopback: pages that the browser's own machine serves.
    """

    allow_origins: tuple[Origin, ...] = ()
    allow_loopback: bool = True


class Scope(StrEnum):
    """What a key opens."""

    USER = "user"
    ADMIN = "admin"


class KeyLimits(Section):
    """What requests with one key may do and take; None is as much as there is.

    Attributes:
        max_thinking_tokens: of a choice; what asks for more is cut, and told so.
        tier: the highest tier, likewise.
        models: names of the model by which it may be called; empty is all of them.
        requests_per_minute: in any 60 seconds.
        tokens_per_minute: of prompts and answers in any 60 seconds, counted from
            when a request comes; while it runs, as many as it may take.
        per_day: money from midnight to midnight, UTC.
        per_month: money in a month, UTC.
    """

    max_thinking_tokens: Annotated[int, Field(ge=0)] | None = None
    tier: str | None = None
    models: tuple[str, ...] = ()
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    per_day: Annotated[Decimal, Field(gt=0, lt=10**9)] | None = None
    per_month: Annotated[Decimal, Field(gt=0, lt=10**9)] | None = None

    @property
    def spending(self) -> bool:
        """Whether money is limited."""
        return self.per_day is not None or self.per_month is not None

    @property
    def counted(self) -> bool:
        """Whether what has been taken before decides over what comes next."""
        rates = (self.requests_per_minute, self.tokens_per_minute)
        return self.spending or any(rate is not None for rate in rates)


KeyName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]


class ConfiguredKey(KeyLimits):
    """A key that stands in the settings, as `proctor keys create --print` writes it.

    Attributes:
        name: what the ledger calls it.
        hash: its id and the SHA-256 of it, in hexadecimal.
        scope: what it opens.
    """

    name: KeyName
    hash: Annotated[str, Field(pattern="^[0-9a-f]{8}:[0-9a-f]{64}$")]
    scope: Scope = Scope.USER


class Auth(Section):
    """Who is let in.

    Attributes:
        required: whether a key is asked for; None asks for one if keys are listed
            in the settings, or the address is not of this machine alone.
        admin_port: where the metrics are, for whoever reaches it, and no more on
            the server's own port; None leaves them there, for keys of the scope
            "admin" where keys are asked for.
        admin_host: the address of that port.
    """

    required: bool | None = None
    admin_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    admin_host: str = "127.0.0.1"
