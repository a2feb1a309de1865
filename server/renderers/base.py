"""The base of the renderers, which turn the results of a request into its response."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from proctor.server.accounting.cost import RequestCost
from proctor.server.channels.deltas import TokenUsage
from proctor.server.channels.splitter import ChannelSplitter
from proctor.server.engines.base import Engine, Job
from proctor.server.generation.base import Admission, ChoiceResult, OutputItem, StreamItem


class SseEncoder(Protocol):
    """Encodes a stream as server-sent events. Empty events are not sent."""

    def begin(self, index: int) -> bytes:
        """Return the first event of a choice."""

    def item(self, item: StreamItem) -> bytes:
        """Return the event of an item of a choice, empty if the response does not have the item."""

    def finish(self, result: ChoiceResult) -> bytes:
        """Return the last event of a choice."""

    def usage(self, results: Sequence[ChoiceResult]) -> bytes:
        """Return the event after all choices, with the request's usage."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """The fields that responses and their chunks have in common.

    Attributes:
        id: the completion's id.
        created: the Unix time of the request, in seconds.
        model: the model's name.
        admission: the admitted request.
        request_cost: the cost of the request.
    """

    id: str
    created: int
    model: str
    admission: Admission
    request_cost: RequestCost

    def common_fields(self, object_type: str) -> dict[str, Any]:
        """Return the fields that a response and all its chunks have."""
        return {"id": self.id, "object": object_type, "created": self.created, "model": self.model}

    def thinking(self, result: ChoiceResult) -> dict[str, Any]:
        """Return the `thinking` object of a choice."""
        outcome, tier = result.outcome, self.admission.resolution.tier
        return {
            "tier": None if tier is None else tier.name,
            "min_tokens": self.admission.jobs[result.choice].budget.minimum,
            "max_tokens": self.admission.max_thinking_tokens(result.choice),
            "tokens": outcome.tokens,
            "forced_tokens": sum(outcome.forced.values()),
            "forced_spans": [span._asdict() for span in result.forced_spans],
            "continuations": outcome.continuations,
            "loops": sum(outcome.loops.values()),
            "end_reason": outcome.end_reason.value,
            "clamped": self.admission.clamped[result.choice],
        }

    def usage_and_cost(self, results: Sequence[ChoiceResult]) -> dict[str, Any]:
        """Return the `usage` and `cost` of the whole request."""
        prompt_tokens = self.admission.prompt_tokens
        used = [result.used for result in results]
        tokens, thinking = (sum(counts) for counts in zip(*used, strict=True))
        usage = _usage(prompt_tokens, TokenUsage(tokens, thinking))
        if (cached := self.request_cost.cached_tokens) is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        cost = self.request_cost.cost(prompt_tokens)
        return {"usage": usage, "cost": None if cost is None else cost.to_json()}

    def choice_usage(self, choice: int, used: TokenUsage) -> dict[str, Any]:
        """Return the `usage` of one choice so far, for its chunks."""
        return {"usage": _usage(len(self.admission.jobs[choice].prompt_ids), used)}


@dataclass(frozen=True, slots=True)
class ResponseRenderer(ABC):
    """Renders the response to one request, streamed or not.

    Attributes:
        envelope: the fields that all chunks have in common.
    """

    envelope: Envelope

    @abstractmethod
    def splitter(self, engine: Engine, job: Job, index: int) -> ChannelSplitter:
        """Return the splitter of the tokens of a choice."""

    @abstractmethod
    def encoder(self, continuous_usage: bool) -> SseEncoder:
        """Return the encoder of a streamed response.

        Args:
            continuous_usage: whether every chunk has the usage of its choice so far.
        """

    @abstractmethod
    def body(self, items: Iterable[OutputItem], results: Sequence[ChoiceResult]) -> dict[str, Any]:
        """Return the body of a response that is not streamed.

        Args:
            items: the items of all choices, in the order of each choice.
            results: the results of the choices.
        """

    @property
    def reports_progress(self) -> bool:
        """Whether a stream reports the progress of thinking that it does not include."""
        return False

    def transform(
        self, events: AsyncGenerator[StreamItem | ChoiceResult, None]
    ) -> AsyncGenerator[StreamItem | ChoiceResult, None]:
        """Return the items of the choices as they appear in the response."""
        return events


def _usage(prompt_tokens: int, used: TokenUsage) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": used.tokens,
        "total_tokens": prompt_tokens + used.tokens,
        "completion_tokens_details": {"reasoning_tokens": used.thinking},
    }
