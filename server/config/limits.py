"""Settings of what a request may ask for, and of how long things may take."""

from typing import Annotated

from pydantic import (
    Field,
)

from proctor.server.config.section import Section

MIN_REQUEST_SECONDS = 0.01
"""The shortest time that a request can be given: no answer is there sooner, less is a mistake."""


class AnswerReserve(Section):
    """How much of `max_tokens` thinking may not use.

    Attributes:
        share: of `max_tokens`.
        at_least: tokens.
        at_most: tokens.
    """

    share: Annotated[float, Field(ge=0, le=1)] = 0.25
    at_least: Annotated[int, Field(ge=0)] = 16
    at_most: Annotated[int, Field(ge=0)] = 512


class Limits(Section):
    """What one request may ask for, and how long things may take.

    Attributes:
        max_body_bytes: largest body.
        max_choices: largest `n`.
        max_running: choices in the engine at a time; those beyond wait in line, by
            turns of those who sent them. The engine's own `max_num_seqs` should be
            no less.
        max_waiting: requests in the line; those beyond are refused with a 429.
        max_request_seconds: longest time for a request, the line included;
            clients may set a shorter one by `x-request-timeout`.
        heartbeat_seconds: between two comments in a stream; 0 sends none.
        send_timeout_seconds: after so long a client that takes nothing of its
            answer is let go.
        shutdown_grace_seconds: for running answers, once the server was told to stop.
        stall_seconds: after so long without a sign of life, an answer or work of its
            processes, the engine is given up and started again.
        busy_stall_seconds: after so long without an answer it is given up even though
            its processes work; longer than its longest step.
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
