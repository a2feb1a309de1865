"""One answer as it is kept: what was asked, what the server said, how right it is."""

from dataclasses import dataclass
from typing import Any

from proctor.evaluation.conditions import Condition
from proctor.evaluation.statistics.samples import Sample


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """One answer.

    Attributes:
        setting: what was asked for.
        question: the question's id.
        sample: which answer to it, from 0.
        score: how right it is, from 0 to 1.
        said: the answer in a form in which equal ones are equal; None is none.
        confidence: mean log probability of the answer's tokens, None where the
            server did not tell.
        seconds: until all had come.
        response: all that the server said, without the log probabilities.
    """

    setting: Condition
    question: str
    sample: int
    score: float
    said: str | None
    confidence: float | None
    seconds: float
    response: dict[str, Any]

    @property
    def key(self) -> tuple[Condition, str, int]:
        """What no other row has."""
        return self.setting, self.question, self.sample

    @property
    def tokens(self) -> int:
        """Thinking tokens, as the server counts them."""
        return thinking_tokens(self.response)

    @property
    def generated(self) -> int:
        """All generated tokens."""
        count: int = self.response["usage"]["completion_tokens"]
        return count

    @property
    def thinking(self) -> dict[str, Any]:
        """What the server says of the thinking; empty if it says nothing."""
        return self.response["choices"][0].get("thinking") or {}

    @property
    def cost(self) -> float | None:
        """What the server says that it cost, or None."""
        total = (self.response.get("cost") or {}).get("total")
        return None if total is None else float(total)

    @property
    def bounds(self) -> tuple[int, float]:
        """Least and most thinking tokens: of the setting, or else as the server says."""
        most = self.setting.most
        if most is None:
            most = self.thinking.get("max_tokens")
        return self.thinking.get("min_tokens") or 0, float("inf") if most is None else most

    def to_sample(self) -> Sample:
        """What the statistics need of it."""
        return Sample(
            self.question, self.tokens, self.generated, self.score, self.said, self.confidence
        )

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        named = {name: getattr(self, name) for name in self.__slots__}
        return named | {"setting": self.setting.to_json()}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "AnswerRecord":
        """Read what `to_json` made.

        Raises:
            KeyError, TypeError, ValueError: if it is something else.
        """
        row = cls(**{**kept, "setting": Condition.from_json(kept["setting"])})
        row.to_sample()  # a response of another shape is found here, and not in the report
        return row


def thinking_tokens(response: dict[str, Any]) -> int:
    """The server's own count of thinking tokens.

    Raises:
        ValueError: if it has none, and there was thinking.
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
