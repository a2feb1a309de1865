"""The classifier `linear`: signals and n-grams under trained weights."""

from functools import cached_property
from importlib import resources
from pathlib import Path

import numpy as np

from proctor.router import ngrams, rules
from proctor.router.conversation import Conversation
from proctor.router.model import Floats, Model, ModelError, Parts
from proctor.router.parsing import ParsedPrompt, parse_prompt, read_alone
from proctor.router.prediction import Prediction, Signal
from proctor.router.signals import Features

AXIS = np.array([-1.5, -0.5, 0.5, 1.5]) / 5.0
"""From none to high: what a weight per level is worth in levels."""

LEAST_SCORE = 0.1
"""Under it the rules say next to nothing, and nothing is laid at their signals' door."""


class Ensemble:
    """Judges by a trained model, by default the one of the package; loaded at the first prompt."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    @cached_property
    def model(self) -> Model:
        """The model.

        Raises:
            ModelError: if the file holds none, or one over other signals.
        """
        path = self._path or Path(
            str(resources.files("proctor.router") / "weights" / "ensemble.npz")
        )
        model = Model.load(path)
        if tuple(model.names) != NAMES:
            raise ModelError(f"{path} was trained on other signals: train it again")
        return model

    def classify(self, conversation: Conversation) -> Prediction:
        """See `Classifier`."""
        reading = parse_prompt(conversation)
        seen = rules.see(reading)
        parts = take_apart(reading, seen)
        answers = self.model.answers(parts)
        chances = self.model.probabilities(answers)
        if rules.asks_on(reading, seen.values):
            chances = (chances + self._alone(reading.earlier)) / 2.0
        none, low, medium, high = chances.tolist()
        evidence = _evidence(self.model, parts, answers, seen)
        return Prediction(
            (none, low, medium, high), rules.ranked(evidence, directed=reading.directed)
        )

    def _alone(self, prompt: str) -> Floats:
        reading = read_alone(prompt)
        return self.model.probabilities(self.model.answers(take_apart(reading, rules.see(reading))))


def take_apart(reading: ParsedPrompt, seen: Features) -> Parts:
    """A prompt as the model sees it."""
    values = [*seen.values.values(), *_score(seen)]
    return Parts(np.array(values, np.float32), *ngrams.counts(reading.text, seen.words))


def _score(seen: Features) -> list[float]:
    """The rules' score, whole and level by level, so that weights can bend it."""
    score = rules.score(seen.values)
    steps = [min(1.0, max(0.0, score - step)) for step in range(len(AXIS))]
    return [min(4.0, max(-0.5, score)), *steps]


SCORES = ("the rules' score", *(f"the rules' score over {step}" for step in range(len(AXIS))))
NAMES = (*rules.see(rules.NOTHING).values, *SCORES)
"""The model's features: signals, then the rules' score."""

RULED = np.array([rules.WEIGHTS.get(name, 0.0) for name in NAMES[: -len(SCORES)]])
"""What the rules give each signal."""


def _evidence(model: Model, parts: Parts, answers: Floats, seen: Features) -> list[Signal]:
    """What each signal that is there adds, against its absence, and what the wording does."""
    shares: Floats = model.shares
    each = parts.values * (model.signal_weights @ AXIS / model.scale) * shares[0]
    own, scores = each[: -len(SCORES)], each[-len(SCORES) :]
    # The model also sees the rules' score, so a signal speaks through its weight there too.
    score = rules.score(seen.values)
    if score > LEAST_SCORE:
        own = own + scores.sum() / score * RULED * parts.values[: -len(SCORES)]
    strongest = np.argsort(-np.abs(own))[: rules.MOST_SIGNALS]
    evidence = [
        Signal(rules.label(NAMES[at], seen), round(weight, 3))
        for at, weight in zip(strongest.tolist(), own[strongest].tolist(), strict=True)
        if weight
    ]
    wording = (answers[1] - model.gram_bias) @ AXIS * shares[1]
    together = (answers[2] - model.tree_bias) @ AXIS * shares[2]
    evidence.append(Signal("the wording", round(float(wording), 3)))
    evidence.append(Signal("signals together", round(float(together), 3)))
    return evidence
