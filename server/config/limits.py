"""Settings of limits and timeouts."""

from typing import Annotated

from pydantic import (
    Field,
)

from proctor.server.config.section import Section

SESSION_ID = "^[A-Za-z0-9][A-Za-z0-9._:@=+-]{0,127}$"
"""The IDs of sessions: they are stored, sent in headers and used in paths."""

MIN_REQUEST_SECONDS = 0.01
"""The minimum timeout of a request: no answer takes less, so that a smaller value is a mistake."""


class AnswerReserve(Section):
    """The part of `max_tokens` that is reserved for the answer.

    Attributes:
        share: the reserved share of `max_tokens`.
        at_least: the minimum number of reserved tokens.
        at_most: the maximum number of reserved tokens.
    """

    share: Annotated[float, Field(ge=0, le=1)] = 0.25
    at_least: Annotated[int, Field(ge=0)] = 16
    at_most: Annotated[int, Field(ge=0)] = 512


class Limits(Section):
    """Limits and timeouts of requests.

    Attributes:
        max_body_bytes: the maximum size of a request body.
        max_choices: the maximum `n`.
        max_running: the maximum number of choices in the engine at a time; further ones
            wait in the queue, round-robin over clients. The engine's `max_num_seqs`
            should be at least as large.
        max_waiting: the maximum number of requests in the queue. When the queue is
            full, requests get 429.
        max_request_seconds: the timeout of a request, the time in the queue included;
            clients may set a shorter one by the header `x-request-timeout`.
        heartbeat_seconds: the interval between comments in a silent stream; 0 sends none.
        send_timeout_seconds: the time after which clients that stop reading are
            disconnected.
        shutdown_grace_seconds: the time that running requests have to complete once the
            server shuts down.
        stall_seconds: the time after which the engine is restarted if it produces
            nothing and its processes are idle.
        busy_stall_seconds: the time after which the engine is restarted if it produces
            nothing although its processes are busy; must exceed its longest step.
    """

    max_body_bytes: Annotated[int, Field(ge=1)] = 4 * 2**20
    max_choices: Annotated[int, Field(ge=1)] = 16
    max_running: Annotated[int, Field(ge=1)] = 256
    max_waiting: Annotated[int, Field(ge=0)] = 1024
    max_request_seconds: Annotated[float, Field(ge=MIN_REQUEST_SECONDS, allow_inf_nan=False)] = (
        3600.0
    )
    heartbeat_seconds: Annotated[float, Field(ge=0)] = 10.0
    send_timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    shutdown_grace_seconds: Annotated[int, Field(ge=0)] = 30
    stall_seconds: Annotated[float, Field(gt=0)] = 8.0
    busy_stall_seconds: Annotated[float, Field(gt=0)] = 300.0


MAX_NAME = 256

ModelName = Annotated[
    str, Field(max_length=MAX_NAME, pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*\S)?$")
]
"""A model name that requests can use: printable, without leading or trailing spaces."""
