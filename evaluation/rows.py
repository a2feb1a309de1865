"""The stored record of one answer: condition, question, score and response."""

from dataclasses import dataclass, replace
from typing import Any

from proctor.evaluation.conditions import Condition
from proctor.evaluation.statistics.samples import Sample

STORED_NAMES = {"condition": "setting", "normalized_answer": "said"}
"""Fields of `AnswerRecord` that have another name in files."""

COUNTS = ("usage", "cost")
"""Fields of a response that count rather than say something."""


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """One answer.

    Attributes:
        condition: the condition under which it was generated.
        question: the question's id.
        sample: the index of the answer among those to this question, from 0.
        score: the scorer's score, from 0 to 1.
        normalized_answer: the answer in a form in which equal answers are equal; None without
            an answer.
        confidence: the mean log probability of the answer's tokens, None if the server did not
            return any.
        seconds: from the request to the complete response.
        response: the complete response, without log probabilities.
    """

    condition: Condition
    question: str
    sample: int
    score: float
    normalized_answer: str | None
    confidence: float | None
    seconds: float
    response: dict[str, Any]

    @property
    def key(self) -> tuple[Condition, str, int]:
        """The unique key of the record."""
        return self.condition, self.question, self.sample

    @property
    def tokens(self) -> int:
        """Thinking tokens of all chains and tokens of probes, as the server's usage counts them."""
        return thinking_tokens(self.response)

    @property
    def generated(self) -> int:
        """All generated tokens, as the server counts them: thinking, probes and answer."""
        count: int = self.response["usage"]["completion_tokens"]
        return count

    @property
    def probe_tokens(self) -> int:
        """Tokens of the probes that checked whether the thinking can end."""
        return probe_tokens(self.response)

    @property
    def thinking(self) -> dict[str, Any]:
        """The response's `thinking` object; empty if it has none."""
        return self.response["choices"][0].get("thinking") or {}

    @property
    def cost(self) -> float | None:
        """The cost in the response, or None."""
        total = (self.response.get("cost") or {}).get("total")
        return None if total is None else float(total)

    @property
    def bounds(self) -> tuple[int, float]:
        """Minimum and maximum thinking tokens: the condition's, or else those of the response."""
        maximum = self.condition.max_tokens
        if maximum is None:
            maximum = self.thinking.get("max_tokens")
        return self.thinking.get("min_tokens") or 0, float("inf") if maximum is None else maximum

    def to_sample(self) -> Sample:
        """Return the part that the statistics need."""
        return Sample(
            self.question,
            self.tokens,
            self.generated,
            self.score,
            self.normalized_answer,
            self.confidence,
            self.sample,
        )

    def without_texts(self) -> "AnswerRecord":
        """Return the record with what the response counts, and without what it says."""
        choice = {"message": {}, "thinking": self.thinking}
        kept = {name: self.response[name] for name in COUNTS if name in self.response}
        return replace(self, response={"choices": [choice], **kept})

    def to_json(self) -> dict[str, Any]:
        """Return the record as it is stored."""
        fields = {STORED_NAMES.get(name, name): getattr(self, name) for name in self.__slots__}
        return fields | {"setting": self.condition.to_json()}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "AnswerRecord":
        """Parse the output of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: if it is invalid.
        """
        fields = {name: stored[STORED_NAMES.get(name, name)] for name in cls.__slots__}
        row = cls(**{**fields, "condition": Condition.from_json(fields["condition"])})
        row.to_sample()  # raises if the response is invalid
        return row


def thinking_tokens(response: dict[str, Any]) -> int:
    """Return the server's count of thinking tokens.

    Raises:
        ValueError: if the response has thinking without a count.
    """
    details = response["usage"].get("completion_tokens_details") or {}
    count: int | None = details.get("reasoning_tokens")
    if count is not None:
        return count
    message = response["choices"][0]["message"]
    if message.get("reasoning_content") or message.get("reasoning"):
        raise ValueError(
            "the server does not count its thinking: usage.completion_tokens_details has no "
            "reasoning_tokens"
        )
    return 0


def probe_tokens(response: dict[str, Any]) -> int:
    """Return the server's count of tokens of probes, which the thinking tokens include."""
    thinking = response["choices"][0].get("thinking") or {}
    return int(thinking.get("probe_tokens") or 0)
