"""Classifies prompts by how much thinking they need."""

from proctor.router.classifier import Classifier, Constant, UnknownClassifier, load
from proctor.router.conversation import Conversation, Turn
from proctor.router.decision import Costs, decide
from proctor.router.prediction import LEVELS, Prediction, Signal

__all__ = [
    "LEVELS",
    "Classifier",
    "Constant",
    "Conversation",
    "Costs",
    "Prediction",
    "Signal",
    "Turn",
    "UnknownClassifier",
    "decide",
    "load",
]
