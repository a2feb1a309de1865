"""On which terms a request is served: whose it is, and until when."""

import asyncio
import math
from dataclasses import dataclass

from fastapi import Request

from proctor.server.auth.api_key import Key
from proctor.server.config.limits import MIN_REQUEST_SECONDS, Limits
from proctor.server.errors import BadRequest, DeadlineExceeded

TIMEOUT_HEADER = "x-request-timeout"
NAMES_HEADER = "x-event-names"
FLAGS = {"true": True, "false": False}
EVERYBODY = ""
"""Whose a request is, where no keys are asked for."""


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What holds for one request, whatever it asks for.

    Attributes:
        key: whose it is, or None where no keys are asked for.
        seconds: how long it may take.
        deadline: when that is over, by the event loop's clock.
        event_names: whether a stream's events are to have names; None if its header does not say.
    """

    key: Key | None
    seconds: float
    deadline: float
    event_names: bool | None = None

    @classmethod
    def of(cls, request: Request, limits: Limits) -> "RequestContext":
        """From the request's headers and the operator's limits.

        Raises:
            BadRequest: if a header of them cannot be read, or gives a time in which no
                answer could come.
        """
        seconds = min(_asked(request), limits.max_request_seconds)
        deadline = asyncio.get_running_loop().time() + seconds
        return cls(request.state.key, seconds, deadline, event_names=_names(request))

    @property
    def name(self) -> str:
        """The key's name; those who wait for the engine take turns by it."""
        return EVERYBODY if self.key is None else self.key.name

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


def _names(request: Request) -> bool | None:
    told = request.headers.get(NAMES_HEADER)
    if told is None:
        return None
    if told.lower() not in FLAGS:
        raise BadRequest(f"'{NAMES_HEADER}' must be true or false", param=NAMES_HEADER)
    return FLAGS[told.lower()]
