"""The classifier protocol, and loading of classifiers by name."""

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

from proctor.router.conversation import Conversation
from proctor.router.prediction import LEVELS, Prediction, Probabilities

GROUP = "proctor.classifiers"
"""Entry-point group of classifier factories: classes or functions that take no arguments."""


class Classifier(Protocol):
    """Estimates how difficult a prompt is."""

    def classify(self, conversation: Conversation) -> Prediction:
        """Classify the last user turn of the conversation; must not raise on any text."""
        ...


class UnknownClassifier(ValueError):
    """No installed classifier has this name."""


def load(name: str) -> Classifier:
    """Create the classifier that is registered under `name`.

    Raises:
        UnknownClassifier: if there is none; the message lists the installed names.
    """
    installed = entry_points(group=GROUP)
    if name not in installed.names:
        names = ", ".join(sorted(installed.names)) or "none"
        raise UnknownClassifier(f"Unknown classifier '{name}'. Installed classifiers: {names}")
    classifier: Classifier = installed[name].load()()
    return classifier


@dataclass(frozen=True, slots=True)
class Constant:
    """The classifier `constant`, which assigns one level to every prompt.

    Raises:
        ValueError: if `level` is not one of `LEVELS`.
    """

    level: str = "medium"

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, not '{self.level}'")

    def classify(self, conversation: Conversation) -> Prediction:
        none, low, medium, high = (float(level == self.level) for level in LEVELS)
        probabilities: Probabilities = (none, low, medium, high)
        return Prediction(probabilities)
