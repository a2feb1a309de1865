"""The phases of a choice's thinking, and every way from one to another."""

from enum import StrEnum


class Phase(StrEnum):
    """Where a choice stands."""

    OUTSIDE = "outside"
    OPENING = "opening"
    THINKING = "thinking"
    CONTINUING = "continuing"
    CLOSING = "closing"


class Event(StrEnum):
    """What takes a choice from one phase to another."""

    OPENED = "the start marker is complete"
    CLOSED = "the end marker is complete"
    ATTEMPT = "an attempt to close is turned down"
    NUDGE = "a loop is found and nudged"
    RESUME = "the continuation has been said"
    SPENT = "the maximum is reached"
    LAND = "a sentence ends near the maximum"
    LOOP = "a loop is found"


TRANSITIONS = {
    (Phase.OUTSIDE, Event.OPENED): Phase.THINKING,
    (Phase.OPENING, Event.OPENED): Phase.THINKING,
    (Phase.THINKING, Event.CLOSED): Phase.OUTSIDE,
    (Phase.THINKING, Event.ATTEMPT): Phase.CONTINUING,
    (Phase.THINKING, Event.NUDGE): Phase.CONTINUING,
    (Phase.THINKING, Event.SPENT): Phase.CLOSING,
    (Phase.THINKING, Event.LAND): Phase.CLOSING,
    (Phase.THINKING, Event.LOOP): Phase.CLOSING,
    (Phase.CONTINUING, Event.RESUME): Phase.THINKING,
    (Phase.CONTINUING, Event.SPENT): Phase.CLOSING,
    (Phase.CLOSING, Event.CLOSED): Phase.OUTSIDE,
}
"""Every event that is legal in a phase, and the phase that follows."""


def diagram() -> str:
    """The transitions as a Mermaid state diagram, as it stands in `docs/concepts/phases.md`."""
    lines = [
        f"    {phase} --> {following}: {event}" for (phase, event), following in TRANSITIONS.items()
    ]
    begins = [f"    [*] --> {phase}" for phase in (Phase.OUTSIDE, Phase.OPENING, Phase.THINKING)]
    return "\n".join(["stateDiagram-v2", *begins, *lines])
