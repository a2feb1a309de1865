"""On which terms a request is served: whose it is, and until when."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fastapi import Request

from server.errors import BadRequest, DeadlineExceeded
from server.key import Key
from server.sections import MIN_REQUEST_SECONDS, Limits

TIMEOUT_HEADER = "x-request-timeout"
EVERYBODY = ""
"""Whose a request is, where no keys are asked for."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one request, whatever it asks for.

    Attributes:
        key: whose it is, or None where no keys are asked for.
        seconds: how long it may take.
        deadline: when that is over, by the event loop's clock.
        left: headers that tell what the key has left.
    """

    key: Key | None
    seconds: float
    deadline: float
    left: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, request: Request, limits: Limits) -> "Terms":
        """From the request's headers and the operator's limits.

        Raises:
            BadRequest: if the time that the client gives is no number of seconds, or none
                in which an answer could come.
        """
        seconds = min(_asked(request), limits.max_request_seconds)
        return cls(request.state.key, seconds, asyncio.get_running_loop().time() + seconds)

    @property
    def name(self) -> str:
        """The key's name; those who wait for the engine take turns by it."""
        return EVERYBODY if self.key is None else self.key.name

    def leaving(self, left: Mapping[str, str]) -> "Terms":
        """The same, once it is known what the key has left."""
        return replace(self, left=left)

    def overdue(self) -> DeadlineExceeded:
        """What to say when the time is over."""
        return DeadlineExceeded(f"the answer was not there within {self.seconds:g} s")


def _asked(request: Request) -> float:
    told = request.headers.get(TIMEOUT_HEADER)
    if told is None:
        return math.inf
    try:
        seconds = float(told)
    except ValueError:
        seconds = math.nan
    if not seconds >= MIN_REQUEST_SECONDS:
        raise BadRequest(
            f"'{TIMEOUT_HEADER}' must be a number of seconds, {MIN_REQUEST_SECONDS:g} or more",
            param=TIMEOUT_HEADER,
        )
    return seconds
