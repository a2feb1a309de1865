"""Runs the router's classifier on chat requests."""

import time

from proctor.router import (
    Classifier,
    Conversation,
    Turn,
    UnknownClassifier,
    decide,
    load,
)
from proctor.server.config.budgets import RouterSettings
from proctor.server.config.section import ConfigError
from proctor.server.generation.base import RoutingResult
from proctor.server.schemas.generation import ChatRequest


class Router:
    """Classifies requests by how much thinking they need."""

    def __init__(self, classifier: Classifier, settings: RouterSettings) -> None:
        self._classifier = classifier
        self._costs = settings.costs

    @classmethod
    def load(cls, settings: RouterSettings) -> "Router":
        """Return a router with the classifier that the settings name.

        Raises:
            ConfigError: if that classifier is not installed.
        """
        try:
            router = cls(load(settings.classifier), settings)
        except UnknownClassifier as error:
            raise ConfigError(f"router.classifier: {error}") from error
        # Weights and word lists are loaded on the first use; trigger that before a client does.
        router.classify_conversation(Conversation.of(""))
        return router

    def classify(self, request: ChatRequest) -> RoutingResult:
        """Classify a request by the last user turn, in the context of the conversation."""
        turns = tuple(Turn(message.role, message.text) for message in request.messages)
        return self.classify_conversation(Conversation(turns, tools=len(request.tools or ())))

    def classify_conversation(self, conversation: Conversation) -> RoutingResult:
        started_ns = time.time_ns()
        prediction = self._classifier.classify(conversation)
        level = decide(prediction.probabilities, self._costs)
        return RoutingResult(level, prediction, started_ns, time.time_ns())
