"""The answers that an outcome model is learned from."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from proctor.router.classifier import Classifier
from proctor.router.conversation import Conversation
from proctor.router.model import Floats, Integers
from proctor.router.outcomes.features import extract
from proctor.router.prediction import LEVELS, Prediction

MAX_ANSWERS = 20_000
"""Only the newest are used, which bounds memory (100 MB) and time."""


class Ending(StrEnum):
    """How an answer ended, as far as that hints at whether it is right."""

    NATURAL = "natural"
    SETTLED = "settled"
    UNSURE = "unsure"
    CAPPED = "capped"
    LOOP = "loop"
    TRUNCATED = "truncated"
    SPILLED = "spilled"
    REPEATED = "repeated"
    UNKNOWN = "unknown"

    @classmethod
    def of(
        cls, end_reason: str, finish_reason: str, spilled: int = 0, *, repeated: bool = False
    ) -> "Ending":
        """Classify an answer.

        Args:
            end_reason: why its thinking ended.
            finish_reason: why its generation ended.
            spilled: the number of tokens of thinking that the answer contains.
            repeated: whether the same client sent the same request again soon after.
        """
        if repeated:
            return cls.REPEATED
        if spilled:
            return cls.SPILLED
        if end_reason == "loop":
            return cls.LOOP
        if finish_reason == "length":
            return cls.TRUNCATED
        return _BY_END_REASON.get(end_reason, cls.UNKNOWN)


_BY_END_REASON = {
    "natural": Ending.NATURAL,
    "settled": Ending.SETTLED,
    "unsure": Ending.UNSURE,
    "max": Ending.CAPPED,
    "length": Ending.CAPPED,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        conversation: its request.
        tier: the name of its tier.
        tokens: its thinking tokens.
        ending: how it ended.
        time: when it was requested, in seconds since the Unix epoch.
        score: how good it is, from 0 to 1; None if nobody has told.
    """

    conversation: Conversation
    tier: str
    tokens: int
    ending: Ending
    time: float
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """n answers as arrays, oldest first; L is 4 levels, D features, K tiers.

    Attributes:
        tiers: (K,) names of the tiers, from the least thinking to the most.
        features: (n, D) float32, of the prompts.
        levels: (n, L), the probabilities of the levels of difficulty.
        tier: (n,), indices into `tiers`.
        tokens: (n,), thinking tokens.
        score: (n,), NaN if nobody has told.
        ending: (n,), members of `Ending`.
        time: (n,), in seconds since the Unix epoch.
        prompt: (n,), equal for equal prompts, from 0.
    """

    tiers: tuple[str, ...]
    features: Floats
    levels: Floats
    tier: Integers
    tokens: Floats
    score: Floats
    ending: NDArray[np.str_]
    time: Floats
    prompt: Integers

    @classmethod
    def of(
        cls, answers: Sequence[Answer], tiers: Sequence[str], classifier: Classifier
    ) -> "Answers":
        """Classify the prompts of the newest answers of these tiers."""
        used = sorted((each for each in answers if each.tier in tiers), key=lambda each: each.time)
        used = used[-MAX_ANSWERS:]
        prompts = {each.conversation: index for index, each in enumerate(used)}
        predictions = {each: classifier.classify(each) for each in prompts}
        numbers = {each: index for index, each in enumerate(prompts)}
        features = {each: extract(prediction) for each, prediction in predictions.items()}
        width = len(next(iter(features.values()), extract(Prediction((1.0, 0.0, 0.0, 0.0)))))
        return cls(
            tuple(tiers),
            np.array([features[each.conversation] for each in used], np.float32).reshape(-1, width),
            np.array(
                [predictions[each.conversation].probabilities for each in used], float
            ).reshape(-1, len(LEVELS)),
            np.array([tiers.index(each.tier) for each in used], np.intp),
            np.array([each.tokens for each in used], float),
            np.array([np.nan if each.score is None else each.score for each in used], float),
            np.array([each.ending.value for each in used], np.str_),
            np.array([each.time for each in used], float),
            np.array([numbers[each.conversation] for each in used], np.intp),
        )

    def __len__(self) -> int:
        return len(self.tier)

    @property
    def graded(self) -> NDArray[np.bool_]:
        """(n,), whether the score is known."""
        return ~np.isnan(self.score)

    def select(self, rows: Integers | NDArray[np.bool_]) -> "Answers":
        """Return the answers of these rows."""
        return Answers(
            self.tiers,
            self.features[rows],
            self.levels[rows],
            self.tier[rows],
            self.tokens[rows],
            self.score[rows],
            self.ending[rows],
            self.time[rows],
            self.prompt[rows],
        )
