"""The router in the gateway: from a chat request to a level of difficulty."""

import time
from dataclasses import dataclass

from proctor.router import (
    Classifier,
    Conversation,
    Prediction,
    Turn,
    UnknownClassifier,
    decide,
    load,
)
from proctor.server.config.budgets import RouterSettings
from proctor.server.config.settings import ConfigError
from proctor.server.schemas.generation import ChatRequest


@dataclass(frozen=True, slots=True)
class Routed:
    """What the router found.

    Attributes:
        level: one of `router.LEVELS`.
        verdict: why.
        began: when it was asked, in nanoseconds since 1970.
        ended: when it had found it.
    """

    level: str
    verdict: Prediction
    began: int
    ended: int


class Router:
    """Sorts requests by how much thinking they need."""

    def __init__(self, classifier: Classifier, settings: RouterSettings) -> None:
        self._classifier = classifier
        self._costs = settings.costs

    @classmethod
    def load(cls, settings: RouterSettings) -> "Router":
        """The router that the settings name.

        Raises:
            BadSettings: if no such classifier is installed.
        """
        try:
            router = cls(load(settings.classifier), settings)
        except UnknownClassifier as error:
            raise ConfigError(f"router.classifier: {error}") from error
        # Weights and word lists are read at the first prompt, which should be nobody's.
        router.sort_conversation(Conversation.of(""))
        return router

    def sort(self, request: ChatRequest) -> Routed:
        """Sort by the conversation's last user turn, seen in its context."""
        turns = tuple(Turn(message.role, message.text) for message in request.messages)
        return self.sort_conversation(Conversation(turns, tools=len(request.tools or ())))

    def sort_conversation(self, conversation: Conversation) -> Routed:
        """The same, of a conversation that is no request."""
        began = time.time_ns()
        verdict = self._classifier.classify(conversation)
        level = decide(verdict.probabilities, self._costs)
        return Routed(level, verdict, began, time.time_ns())
