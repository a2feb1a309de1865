"""What is said of one request, whatever the shape that it is said in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from server.admission import Admission
from server.prices import Cost
from server.sections import Prices
from server.turn import End


@dataclass(frozen=True, slots=True)
class Reply:
    """What is the same in all that is said about one request.

    Attributes:
        id: the completion's id.
        created: unix time, in seconds.
        model: the model's name.
        admission: what was let in.
        prices: None where they are not known.
    """

    id: str
    created: int
    model: str
    admission: Admission
    prices: Prices | None

    def envelope(self, kind: str) -> dict[str, Any]:
        """What stands in every piece of it."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def thinking(self, end: End) -> dict[str, Any]:
        """What became of one choice's thinking."""
        outcome, tier = end.outcome, self.admission.resolution.tier
        return {
            "tier": None if tier is None else tier.name,
            "min_tokens": self.admission.enforced.minimum,
            "max_tokens": self.admission.max_thinking_tokens,
            "tokens": outcome.tokens,
            "forced_tokens": sum(outcome.forced.values()),
            "forced_spans": [span._asdict() for span in end.forced_spans],
            "continuations": outcome.continuations,
            "end_reason": outcome.end_reason.value,
            "clamped": bool(self.admission.clamped_by),
        }

    def accounts(self, ends: Sequence[End]) -> dict[str, Any]:
        """What was used, and what it costs."""
        prompt = self.admission.prompt_tokens
        completion = sum(end.tokens for end in ends)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "completion_tokens_details": {
                "reasoning_tokens": sum(end.outcome.tokens for end in ends)
            },
        }
        return {"usage": usage, "cost": self._cost(ends)}

    def _cost(self, ends: Sequence[End]) -> dict[str, Any] | None:
        if self.prices is None:
            return None
        answer = sum(end.answer_tokens for end in ends)
        thinking = sum(end.tokens for end in ends) - answer
        return Cost.of(self.prices, self.admission.prompt_tokens, thinking, answer).to_json()
