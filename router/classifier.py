"""What a classifier is, and how one is found by name."""

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

from proctor.router.conversation import Conversation
from proctor.router.prediction import LEVELS, Prediction, Probabilities

GROUP = "proctor.classifiers"
"""Entry points of this group are factories without arguments: classes or functions."""


class Classifier(Protocol):
    """Anything that says how hard a prompt is."""

    def classify(self, conversation: Conversation) -> Prediction:
        """How hard the conversation's last user turn is; never raises on any text."""
        ...


class UnknownClassifier(ValueError):
    """No installed classifier has this name."""


def load(name: str) -> Classifier:
    """The classifier that is installed under a name.

    Raises:
        UnknownClassifier: if there is none; the message names those that are.
    """
    installed = entry_points(group=GROUP)
    if name not in installed.names:
        names = ", ".join(sorted(installed.names)) or "none"
        raise UnknownClassifier(f"no classifier is called '{name}'; installed are: {names}")
    classifier: Classifier = installed[name].load()()
    return classifier


@dataclass(frozen=True, slots=True)
class Constant:
    """The classifier `constant`: every prompt is of one level.

    Raises:
        ValueError: if there is no such level.
    """

    level: str = "medium"

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"'{self.level}' is not one of {', '.join(LEVELS)}")

    def classify(self, conversation: Conversation) -> Prediction:
        """See `Classifier`."""
        none, low, medium, high = (float(level == self.level) for level in LEVELS)
        chances: Probabilities = (none, low, medium, high)
        return Prediction(chances)
