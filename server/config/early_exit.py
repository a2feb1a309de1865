"""When thinking ends early because its answer is settled."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

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
        OFF: thinking does not end early.
    """

    ENTROPY = "entropy"
    ANSWER = "answer"
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
        threshold: with `entropy`, the entropy in nats up to which the answer counts as settled.
        every: the minimum number of thinking tokens between two probes, which happen at the ends
            of sentences.
        patience: how many probes in a row must find the answer settled.
        answer: with `answer`, how trial answers are compared.
        opening: the text with which answers begin, after the end marker.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method
    threshold: Annotated[float, Field(gt=0)] = DEFAULT_ENTROPY
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

    @property
    def probe_tokens(self) -> int:
        """The maximum number of tokens that a probe generates."""
        return TRIAL_TOKENS if self.method is Method.ANSWER else 1

    def allowance(self, minimum: int, maximum: int) -> int:
        """Return how many tokens of a budget are set aside for probes.

        Args:
            minimum: the minimum of thinking tokens.
            maximum: the maximum of thinking tokens, probes included.

        Returns:
            A multiple of `probe_tokens`; 0 if the budget is too small for `patience` probes.
        """
        probes = min(maximum // self.every, maximum // ALLOWANCE_DIVISOR // self.probe_tokens)
        probes = min(probes, (maximum - minimum) // self.probe_tokens)
        return probes * self.probe_tokens if probes >= self.patience else 0
