"""The context of a request: its API key, its deadline and its response options."""

import asyncio
import math
from dataclasses import dataclass, replace

from fastapi import Request

from proctor.server.auth.api_key import Key
from proctor.server.config.limits import MIN_REQUEST_SECONDS, Limits
from proctor.server.errors import BadRequest, DeadlineExceeded
from proctor.server.sessions.names import UNNAMED, RequestedSession

TIMEOUT_HEADER = "x-request-timeout"
NAMES_HEADER = "x-event-names"
FLAGS = {"true": True, "false": False}
ANONYMOUS = ""
"""The key name of requests to a server that requires no API key."""


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The properties of a request that do not depend on its endpoint.

    Attributes:
        key: its API key, or None if the server requires none.
        seconds: the request's timeout.
        deadline: the end of the timeout, by the event loop's clock.
        event_names: whether server-sent events have names; None if the request has no header for
            it.
        session: the session that the request names, and the limits that it sets for it.
    """

    key: Key | None
    seconds: float
    deadline: float
    event_names: bool | None = None
    session: RequestedSession = UNNAMED

    @classmethod
    def of(cls, request: Request, limits: Limits) -> "RequestContext":
        """Return the context of a request, from its headers and the operator's limits.

        Raises:
            BadRequest: if a header is invalid, or its timeout is below `MIN_REQUEST_SECONDS`.
        """
        seconds = min(_timeout(request), limits.max_request_seconds)
        deadline = asyncio.get_running_loop().time() + seconds
        return cls(request.state.key, seconds, deadline, event_names=_event_names(request))

    def in_session(self, session: RequestedSession) -> "RequestContext":
        """Return the context of a request that names a session."""
        return replace(self, session=session)

    def limited_to(self, seconds: float) -> "RequestContext":
        """Return the context with a timeout of at most `seconds` from now."""
        deadline = asyncio.get_running_loop().time() + seconds
        return replace(
            self, seconds=min(self.seconds, seconds), deadline=min(self.deadline, deadline)
        )

    @property
    def name(self) -> str:
        """The key's name, by which requests that wait for the engine are scheduled fairly."""
        return ANONYMOUS if self.key is None else self.key.name

    def timeout_error(self) -> DeadlineExceeded:
        """Return the error to raise at the deadline."""
        return DeadlineExceeded(f"the request did not finish within {self.seconds:g} s")


def _timeout(request: Request) -> float:
    value = request.headers.get(TIMEOUT_HEADER)
    if value is None:
        return math.inf
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not seconds >= MIN_REQUEST_SECONDS:
        raise BadRequest(
            f"'{TIMEOUT_HEADER}' must be a number of seconds, {MIN_REQUEST_SECONDS:g} or more",
            param=TIMEOUT_HEADER,
        )
    return seconds


def _event_names(request: Request) -> bool | None:
    value = request.headers.get(NAMES_HEADER)
    if value is None:
        return None
    if value.lower() not in FLAGS:
        raise BadRequest(f"'{NAMES_HEADER}' must be true or false", param=NAMES_HEADER)
    return FLAGS[value.lower()]
