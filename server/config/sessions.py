"""Settings of sessions: the limits of an agent's calls together."""

from enum import StrEnum
from typing import Annotated

from pydantic import (
    Field,
)

from proctor.server.config.section import UsageLimits


class Limit(StrEnum):
    """The limits of a session, as in metrics and error messages."""

    THINKING = "thinking_tokens"
    TOKENS = "tokens"
    COST = "cost"
    REQUESTS = "requests"
    SECONDS = "seconds"


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
