"""What a classifier says: how hard a prompt is, and what spoke for it."""

from dataclasses import dataclass

LEVELS = ("none", "low", "medium", "high")
"""Levels of difficulty, from a prompt that needs no thinking to one that needs most."""

Probabilities = tuple[float, float, float, float]
"""One for each of `LEVELS`; they sum to 1."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A piece of evidence that a person can read.

    Attributes:
        name: what was seen, in words.
        weight: how strongly it spoke; positive is towards more thinking.
    """

    name: str
    weight: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """A classifier's answer.

    Attributes:
        probabilities: one for each of `LEVELS`.
        signals: the evidence, strongest first.
    """

    probabilities: Probabilities
    signals: tuple[Signal, ...] = ()
