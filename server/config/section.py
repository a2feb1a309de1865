"""What every table of the settings is made of."""

from typing import TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
)

T = TypeVar("T")


class Section(BaseModel):
    """A table of the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def coalesce(default: T, given: T | None) -> T:
    """What is given, or else the default."""
    return default if given is None else given
