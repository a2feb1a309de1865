"""The result of a classification: probabilities of the levels, and the evidence."""

from dataclasses import dataclass, field

import numpy as np

from proctor.router.model import Floats

LEVELS = ("none", "low", "medium", "high")
"""Levels of difficulty, from a prompt that needs no thinking to one that needs the most."""

Probabilities = tuple[float, float, float, float]
"""One per level of `LEVELS`; they sum to 1."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A piece of evidence in human-readable form.

    Attributes:
        name: a description of the evidence.
        weight: its strength; positive means more thinking.
    """

    name: str
    weight: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """A classifier's result.

    Attributes:
        probabilities: one per level of `LEVELS`.
        signals: the evidence, strongest first.
        features: what else models of the tiers' outcomes may learn from, of shape (n,), float32;
            of the same length for every prompt, and empty if the classifier has nothing.
    """

    probabilities: Probabilities
    signals: tuple[Signal, ...] = ()
    features: Floats = field(
        default_factory=lambda: np.zeros(0, np.float32), compare=False, repr=False
    )
