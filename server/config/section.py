"""The base class of the tables of settings, and one that several tables share."""

from decimal import Decimal
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting is invalid; the message names it."""


class Section(BaseModel):
    """Base class of the tables of settings; frozen, and unknown settings are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def coalesce(default: T, value: T | None) -> T:
    """Return the value, or the default if it is None."""
    return default if value is None else value


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
