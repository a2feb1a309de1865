"""When thinking ends early because its answer is settled."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from proctor.budget.confidence import ConfidenceExit

TRIAL_TOKENS = 16
"""Maximum length of a trial answer."""

ALLOWANCE_DIVISOR = 8
"""Probes may use this fraction of the maximum of thinking tokens."""

DEFAULT_ENTROPY = 0.2
"""The default threshold of the entropy, in nats."""


class Method(StrEnum):
    """How a settled answer is recognized.

    Attributes:
        ENTROPY: the entropy of the token that would begin the answer now is low (EAT,
            arXiv 2509.26522).
        ANSWER: trial answers stay the same (Dynasor, arXiv 2412.20993).
        CONFIDENCE: the model is certain of its thinking, or lost in it (DeepConf,
            arXiv 2508.15260).
        OFF: thinking does not end early.
    """

    ENTROPY = "entropy"
    ANSWER = "answer"
    CONFIDENCE = "confidence"
    OFF = "off"


class AnswerKind(StrEnum):
    """How answers are compared: by their last number, by a letter of a choice, or as a text."""

    NUMBER = "number"
    CHOICE = "choice"
    TEXT = "text"


class EarlyExit(BaseModel):
    """When thinking ends early because its answer is settled.

    Attributes:
        method: how that is recognized.
        threshold: with `entropy`, the entropy in nats up to which the answer counts as settled,
            0.2 by default. With `confidence`, the mean confidence of a window from which on it
            does; see `proctor.budget.confidence`.
        floor: with `confidence`, the mean confidence of a window below which the thinking is lost.
        every: the minimum number of thinking tokens between two probes, which happen at the ends
            of sentences; with `confidence`, the length of a window.
        patience: how many probes or windows in a row must find the answer settled.
        answer: with `answer`, how trial answers are compared.
        opening: the text with which answers begin, after the end marker.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method
    threshold: Annotated[float, Field(gt=0)] | None = None
    floor: Annotated[float, Field(gt=0)] | None = None
    every: Annotated[int, Field(ge=1)] = 32
    patience: Annotated[int, Field(ge=1, le=16)] = 2
    answer: AnswerKind = AnswerKind.TEXT
    opening: Annotated[str, Field(max_length=256)] = ""

    @field_validator("patience")
    @classmethod
    def _compares_answers(cls, patience: int, info: ValidationInfo) -> int:
        if info.data.get("method") is Method.ANSWER and patience < 2:
            raise ValueError("must be at least 2, as a single answer agrees with itself")
        return patience

    @model_validator(mode="after")
    def _can_end(self) -> "EarlyExit":
        limits = (self.threshold, self.floor)
        if self.method is Method.CONFIDENCE and limits == (None, None):
            raise ValueError("the method 'confidence' requires a threshold or a floor")
        return self

    @property
    def max_entropy(self) -> float:
        """The entropy in nats up to which the answer counts as settled."""
        return DEFAULT_ENTROPY if self.threshold is None else self.threshold

    @property
    def confidence(self) -> ConfidenceExit | None:
        """What the engine watches, with the method `confidence`."""
        if self.method is not Method.CONFIDENCE:
            return None
        return ConfidenceExit(self.every, self.threshold, self.patience, self.floor)

    @property
    def probe_tokens(self) -> int:
        """The maximum number of tokens that a probe generates; 0 without probes."""
        return {Method.ANSWER: TRIAL_TOKENS, Method.ENTROPY: 1}.get(self.method, 0)

    def allowance(self, minimum: int, maximum: int) -> int:
        """Return how many tokens of a budget are set aside for probes.

        Args:
            minimum: the minimum of thinking tokens.
            maximum: the maximum of thinking tokens, probes included.

        Returns:
            A multiple of `probe_tokens`; 0 if the budget is too small for `patience` probes.
        """
        if not self.probe_tokens:
            return 0
        probes = min(maximum // self.every, maximum // ALLOWANCE_DIVISOR // self.probe_tokens)
        if not self.probe_tokens:
            return 0
        probes = min(probes, (maximum - minimum) // self.probe_tokens)
        return probes * self.probe_tokens if probes >= self.patience else 0
