"""What is said of one request, whatever the shape that it is said in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proctor.server.accounting.cost import RequestCost
from proctor.server.generation.admission import Admission
from proctor.server.generation.channels import TokenUsage
from proctor.server.generation.runner import ChoiceResult


@dataclass(frozen=True, slots=True)
class ResponseRenderer:
    """What is the same in all that is said about one request.

    Attributes:
        id: the completion's id.
        created: unix time, in seconds.
        model: the model's name.
        admission: what was let in.
        bill: what it costs.
    """

    id: str
    created: int
    model: str
    admission: Admission
    request_cost: RequestCost

    def envelope(self, kind: str) -> dict[str, Any]:
        """What stands in every piece of it."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def thinking(self, end: ChoiceResult) -> dict[str, Any]:
        """What became of one choice's thinking."""
        outcome, tier = end.outcome, self.admission.resolution.tier
        return {
            "tier": None if tier is None else tier.name,
            "min_tokens": self.admission.jobs[end.choice].budget.minimum,
            "max_tokens": self.admission.max_thinking_tokens(end.choice),
            "tokens": outcome.tokens,
            "forced_tokens": sum(outcome.forced.values()),
            "forced_spans": [span._asdict() for span in end.forced_spans],
            "continuations": outcome.continuations,
            "loops": sum(outcome.loops.values()),
            "end_reason": outcome.end_reason.value,
            "clamped": self.admission.clamped[end.choice],
        }

    def usage_and_cost(self, ends: Sequence[ChoiceResult]) -> dict[str, Any]:
        """What was used, and what it costs."""
        prompt = self.admission.prompt_tokens
        used = [end.used for end in ends]
        tokens, thinking = (sum(each) for each in zip(*used, strict=True))
        usage = _usage(prompt, TokenUsage(tokens, thinking))
        if (cached := self.request_cost.cached_tokens) is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        cost = self.request_cost.cost(prompt)
        return {"usage": usage, "cost": None if cost is None else cost.to_json()}

    def so_far(self, choice: int, used: TokenUsage) -> dict[str, Any]:
        """What one choice has used, for a chunk of its own."""
        return {"usage": _usage(len(self.admission.jobs[choice].prompt_ids), used)}


def _usage(prompt: int, used: TokenUsage) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": used.tokens,
        "total_tokens": prompt + used.tokens,
        "completion_tokens_details": {"reasoning_tokens": used.thinking},
    }
