"""Sorts prompts by how much thinking they need."""

from router.classifier import Classifier, Constant, UnknownClassifier, load
from router.conversation import Conversation, Turn
from router.decision import Costs, decide
from router.verdict import LEVELS, Signal, Verdict

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
