"""The phases of a choice's thinking, and the transitions between them."""

from enum import StrEnum


class Phase(StrEnum):
    """The phase of a choice."""

    OUTSIDE = "outside"
    OPENING = "opening"
    THINKING = "thinking"
    CONTINUING = "continuing"
    CLOSING = "closing"


class Event(StrEnum):
    """The event that causes a transition."""

    OPENED = "the start marker is complete"
    CLOSED = "the end marker is complete"
    ATTEMPT = "an attempt to close is replaced"
    NUDGE = "a loop is detected and nudged"
    RESUME = "the continuation is complete"
    SPENT = "the maximum is reached"
    LAND = "a sentence ends near the maximum"
    LOOP = "a loop is detected"


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
"""The next phase by phase and event; all other events are errors."""


def diagram() -> str:
    """Return the transitions as a Mermaid state diagram, as in `docs/concepts/phases.md`."""
    lines = [
        f"    {phase} --> {following}: {event}" for (phase, event), following in TRANSITIONS.items()
    ]
    begins = [f"    [*] --> {phase}" for phase in (Phase.OUTSIDE, Phase.OPENING, Phase.THINKING)]
    return "\n".join(["stateDiagram-v2", *begins, *lines])
