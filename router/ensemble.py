"""The classifier `ensemble`: a trained model over signals and n-grams."""

from functools import cached_property
from importlib import resources
from pathlib import Path

import numpy as np

from proctor.router import rules
from proctor.router.conversation import Conversation
from proctor.router.features import ngrams
from proctor.router.features.parsing import ParsedPrompt, parse_prompt, parse_text
from proctor.router.features.signal_texts import text_of
from proctor.router.features.signals import Features
from proctor.router.features.wording import hashed_words
from proctor.router.model import Floats, Model, ModelError, ModelInput
from proctor.router.prediction import Prediction, Signal

LEVEL_DIRECTION = np.array([-1.5, -0.5, 0.5, 1.5]) / 5.0
"""Projects logits or weights per level, of shape (..., 4), onto the axis from none to high, in
levels."""

MIN_RULES_SCORE = 0.1
"""Below this score of the rules, none of it is attributed to individual signals."""

SIGNAL_SCALE, WORD_SCALE = np.float32(0.7), np.float32(1.5)
"""Scales of the features for outcome models: under one penalty, a greater scale is penalized less.
Chosen by held-out log loss."""


class Ensemble:
    """Classifies with a trained model, by default the packaged one; loads it on first use."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    @cached_property
    def model(self) -> Model:
        """The trained model.

        Raises:
            ModelError: if the file is not a model, or was trained on other features.
        """
        path = self._path or Path(
            str(resources.files("proctor.router") / "weights" / "ensemble.npz")
        )
        model = Model.load(path)
        if tuple(model.feature_names) != FEATURE_NAMES:
            raise ModelError(f"{path} was trained on different features. Train the model again.")
        return model

    def classify(self, conversation: Conversation) -> Prediction:
        prompt = parse_prompt(conversation)
        features = rules.extract_with_context(prompt)
        inputs = model_input(prompt, features)
        logits = self.model.logits(inputs)
        probabilities = self.model.probabilities(logits)
        if rules.is_follow_up(prompt, features.values):
            previous = self._without_context(prompt.previous_prompt)
            probabilities = (probabilities + previous) / 2.0
        none, low, medium, high = probabilities.tolist()
        evidence = _evidence(self.model, inputs, logits, features)
        ranked = rules.rank(evidence, has_directives=prompt.has_directives)
        scaled = SIGNAL_SCALE * self.model.standardize(inputs.values)
        words = WORD_SCALE * hashed_words(prompt.text)
        return Prediction((none, low, medium, high), ranked, np.concatenate([scaled, words]))

    def _without_context(self, text: str) -> Floats:
        prompt = parse_text(text)
        inputs = model_input(prompt, rules.extract_with_context(prompt))
        return self.model.probabilities(self.model.logits(inputs))


def model_input(prompt: ParsedPrompt, features: Features) -> ModelInput:
    """Return the arrays that the model takes for a prompt."""
    values = [*features.values.values(), *_score_features(features)]
    return ModelInput(np.array(values, np.float32), *ngrams.counts(prompt.text, features.words))


def _score_features(features: Features) -> list[float]:
    """Return the rules' score, and its part in each level's interval, for a piecewise fit."""
    score = rules.score(features.values)
    intervals = [min(1.0, max(0.0, score - start)) for start in range(len(LEVEL_DIRECTION))]
    return [min(4.0, max(-0.5, score)), *intervals]


SCORE_FEATURES = (
    "rules_score",
    *(f"rules_score_over_{start}" for start in range(len(LEVEL_DIRECTION))),
)
FEATURE_NAMES = (*rules.extract_with_context(rules.EMPTY_PROMPT).values, *SCORE_FEATURES)
"""Identifiers of the model's features, in order: the signals, then the rules' score."""

RULE_WEIGHTS = np.array(
    [rules.WEIGHTS.get(name, 0.0) for name in FEATURE_NAMES[: -len(SCORE_FEATURES)]]
)
"""The weight of each signal in the rules' score; 0 for signals that the rules do not use."""


def _evidence(model: Model, inputs: ModelInput, logits: Floats, features: Features) -> list[Signal]:
    """Return what each signal contributes against its absence, then the n-grams and the trees."""
    blend_weights: Floats = model.blend_weights
    weights = model.signal_weights @ LEVEL_DIRECTION / model.scale
    contributions = inputs.values * weights * blend_weights[0]
    own = contributions[: -len(SCORE_FEATURES)]
    scores = contributions[-len(SCORE_FEATURES) :]
    # The rules' score is a feature too, so a signal also contributes through its rule weight.
    score = rules.score(features.values)
    if score > MIN_RULES_SCORE:
        own = own + scores.sum() / score * RULE_WEIGHTS * inputs.values[: -len(SCORE_FEATURES)]
    strongest = np.argsort(-np.abs(own))[: rules.MAX_SIGNALS]
    evidence = [
        Signal(rules.label(FEATURE_NAMES[index], features), round(weight, 3))
        for index, weight in zip(strongest.tolist(), own[strongest].tolist(), strict=True)
        if weight
    ]
    of_ngrams = (logits[1] - model.ngram_bias) @ LEVEL_DIRECTION * blend_weights[1]
    of_trees = (logits[2] - model.tree_bias) @ LEVEL_DIRECTION * blend_weights[2]
    evidence.append(Signal(text_of("ngrams"), round(float(of_ngrams), 3)))
    evidence.append(Signal(text_of("trees"), round(float(of_trees), 3)))
    return evidence
