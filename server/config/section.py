"""The base class of the tables of settings."""

from typing import TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
)

T = TypeVar("T")


class Section(BaseModel):
    """Base class of the tables of settings; frozen, and unknown settings are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def coalesce(default: T, value: T | None) -> T:
    """Return the value, or the default if it is None."""
    return default if value is None else value
