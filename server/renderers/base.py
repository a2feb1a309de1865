"""What the responses of every API share."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from proctor.server.accounting.cost import RequestCost
from proctor.server.engines.base import Engine, Job
from proctor.server.generation.base import (
    Admission,
    ChoiceResult,
    OutputItem,
    StreamItem,
    TokenUsage,
)
from proctor.server.generation.channels import ChannelSplitter


class SseEncoder(Protocol):
    """Encodes one stream as server-sent events; an empty event is not sent."""

    def begin(self, index: int) -> bytes:
        """Return the first event of a choice."""

    def item(self, item: StreamItem) -> bytes:
        """Return the event of an item of a choice."""

    def finish(self, end: ChoiceResult) -> bytes:
        """Return the last event of a choice."""

    def usage(self, ends: Sequence[ChoiceResult]) -> bytes:
        """Return the event after all choices, with the request's usage."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every response, and every chunk of one, says about its request.

    Attributes:
        id: the completion's id.
        created: Unix time, in seconds.
        model: the model's name.
        admission: the admitted request.
        request_cost: its cost.
    """

    id: str
    created: int
    model: str
    admission: Admission
    request_cost: RequestCost

    def of_kind(self, kind: str) -> dict[str, Any]:
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


@dataclass(frozen=True, slots=True)
class ResponseRenderer(ABC):
    """Renders the response to one request, whole or as a stream.

    Attributes:
        envelope: what every chunk of it says.
    """

    envelope: Envelope

    @abstractmethod
    def splitter(self, engine: Engine, job: Job, index: int) -> ChannelSplitter:
        """Return what splits the tokens of a choice into text."""

    @abstractmethod
    def encoder(self, counted: bool) -> SseEncoder:
        """Return what encodes the response as a stream.

        Args:
            counted: whether every chunk carries the usage so far.
        """

    @abstractmethod
    def whole(self, items: Iterable[OutputItem], results: Sequence[ChoiceResult]) -> dict[str, Any]:
        """Return the body of a response that is not streamed."""

    @property
    def reports_progress(self) -> bool:
        """Whether a stream reports the progress of a thinking that it does not show."""
        return False

    def transform(
        self, events: AsyncGenerator[StreamItem | ChoiceResult, None]
    ) -> AsyncGenerator[StreamItem | ChoiceResult, None]:
        """Return the items of the choices as this API has them."""
        return events


def _usage(prompt: int, used: TokenUsage) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": used.tokens,
        "total_tokens": prompt + used.tokens,
        "completion_tokens_details": {"reasoning_tokens": used.thinking},
    }
