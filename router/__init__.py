"""Sorts prompts by how much thinking they need."""

from proctor.router.classifier import Classifier, Constant, UnknownClassifier, load
from proctor.router.conversation import Conversation, Turn
from proctor.router.decision import Costs, decide
from proctor.router.verdict import LEVELS, Signal, Verdict

__all__ = [
    "LEVELS",
    "Classifier",
    "Constant",
    "Conversation",
    "Costs",
    "Signal",
    "Turn",
    "UnknownClassifier",
    "Verdict",
    "decide",
    "load",
]
