"""Settings of sessions: the limits of an agent's calls together."""

from decimal import Decimal
from typing import Annotated, TypeVar

from pydantic import (
    Field,
)

from proctor.server.config.section import Section

SESSION_ID = "^[A-Za-z0-9][A-Za-z0-9._:@=+-]{0,127}$"
"""The IDs of sessions: they are stored, sent in headers and used in paths."""

L = TypeVar("L", bound="UsageLimits")


class UsageLimits(Section):
    """The limits of what a session may use; None sets no limit.

    Attributes:
        max_thinking_tokens: the maximum number of thinking tokens. Budgets are clamped to
            what is left, down to 0.
        max_tokens: the maximum number of tokens of prompts and answers.
        max_cost: the maximum cost; requires prices.
        max_requests: the maximum number of requests.
    """

    max_thinking_tokens: Annotated[int, Field(ge=0)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_cost: Annotated[Decimal, Field(gt=0, lt=10**9)] | None = None
    max_requests: Annotated[int, Field(ge=1)] | None = None

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return any(getattr(self, name) is not None for name in self.limit_names())

    @classmethod
    def limit_names(cls) -> tuple[str, ...]:
        """Return the names of the limits."""
        return tuple(name for name in cls.model_fields if name.startswith("max_"))


class SessionLimits(UsageLimits):
    """The limits of a session; None sets no limit.

    Attributes:
        max_seconds: the maximum time from the first request to the end of the last.
    """

    max_seconds: Annotated[float, Field(gt=0, lt=10**9)] | None = None

    def lowered_by(self, other: "SessionLimits") -> "SessionLimits":
        """Return the lower one of each pair of limits."""
        pairs = {
            name: (getattr(self, name), getattr(other, name))
            for name in SessionLimits.limit_names()
        }
        return SessionLimits(
            **{
                name: min((limit for limit in pair if limit is not None), default=None)
                for name, pair in pairs.items()
            }
        )


class KeySession(SessionLimits):
    """The limits of each session of an API key.

    Attributes:
        single: whether all requests of the key are one session, named after the key.
    """

    single: bool = False
