"""Runs the router on chat requests: its classifier, and the outcome model if there is one."""

import time
from dataclasses import dataclass, replace

from proctor.router import (
    LEVELS,
    Classifier,
    Conversation,
    Prediction,
    Turn,
    UnknownClassifier,
    decide,
    load,
)
from proctor.router.conversation import bounded
from proctor.router.model import ModelError
from proctor.router.outcomes.model import OutcomeModel
from proctor.router.outcomes.policy import Choice, Policy, Rule, explored, positions
from proctor.server.config.budgets import RouterSettings
from proctor.server.config.section import ConfigError
from proctor.server.generation.base import RoutingResult
from proctor.server.schemas.generation import ChatRequest


@dataclass(frozen=True, slots=True)
class RoutedChoice(RoutingResult):
    """The difficulty level of a request, and how its tier was chosen.

    Attributes:
        choice: the tier. The level is the lowest one that is mapped to it.
    """

    choice: Choice


class Router:
    """Chooses how much requests think."""

    def __init__(
        self, classifier: Classifier, settings: RouterSettings, policy: Policy | None = None
    ) -> None:
        self._classifier = classifier
        self._settings = settings
        self._policy = policy

    @classmethod
    def load(cls, settings: RouterSettings) -> "Router":
        """Return a router with the classifier and the outcome model that the settings name.

        Raises:
            ConfigError: if that classifier is not installed, or the model cannot be used.
        """
        try:
            router = cls(load(settings.classifier), settings)
        except UnknownClassifier as error:
            raise ConfigError(f"router.classifier: {error}") from error
        # Weights and word lists are loaded on the first use; trigger that before a client does.
        router.classify_conversation(Conversation.of(""))
        if settings.model is not None and (settings.model.exists() or not settings.learn_hours):
            try:
                router.use(OutcomeModel.load(settings.model))
            except ModelError as error:
                raise ConfigError(f"router.model: {error}") from error
        return router

    def use(self, model: OutcomeModel) -> None:
        """Choose by an outcome model from now on.

        Raises:
            ModelError: if it was learned for other tiers, or with another classifier.
        """
        tiers = tuple(model.tiers.tolist())
        if tiers != self._settings.tiers:
            raise ModelError(
                f"The outcome model is about the tiers {', '.join(tiers)}; those of "
                f"router.levels are {', '.join(self._settings.tiers)}"
            )
        policy = Policy(model, self._settings.objective)
        policy.choose(self._classifier.classify(Conversation.of("")), 0.0)
        self._policy = policy

    def classify(self, request: ChatRequest) -> RoutedChoice:
        """Choose the tier of a request by the last user turn, in the context of the conversation.

        Equal prompts get the same tier.
        """
        turns = tuple(Turn(message.role, message.text) for message in request.messages)
        return self.classify_conversation(Conversation(turns, tools=len(request.tools or ())))

    def classify_conversation(self, conversation: Conversation) -> RoutedChoice:
        started_ns = time.time_ns()
        prediction = self._classifier.classify(conversation)
        position, draw, pick = positions(bounded(conversation.prompt))
        level, choice = self._choose(prediction, position)
        settings = self._settings
        tier = explored(settings.tiers, choice.tier, settings.explore, draw, pick)
        if tier != choice.tier:
            level, choice = self._level(tier), replace(choice, tier=tier, rule=Rule.EXPLORE)
        return RoutedChoice(level, prediction, started_ns, time.time_ns(), choice)

    def _choose(self, prediction: Prediction, position: float) -> tuple[str, Choice]:
        if self._policy is None:
            level = decide(prediction.probabilities, self._settings.costs)
            return level, Choice(self._settings.levels.tier_of(level), Rule.COSTS)
        choice = self._policy.choose(prediction, position)
        return self._level(choice.tier), choice

    def _level(self, tier: str) -> str:
        return next(level for level in LEVELS if self._settings.levels.tier_of(level) == tier)
