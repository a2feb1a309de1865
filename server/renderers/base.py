"""The base of the renderers, which turn the results of a request into its response."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from proctor.budget import Forced
from proctor.server.accounting.cost import RequestCost
from proctor.server.channels.answer_text import AnswerText
from proctor.server.channels.deltas import Channel, TokenUsage
from proctor.server.channels.forced_spans import ForcedSpan
from proctor.server.channels.splitter import ChannelSplitter
from proctor.server.config.budgets import VoteMethod
from proctor.server.engines.base import Engine, Finish, Job
from proctor.server.engines.tool_calls import BoundTools
from proctor.server.generation.base import (
    Admission,
    ChoiceResult,
    OutputItem,
    StreamItem,
    VoteResult,
)
from proctor.server.renderers.sse_encoder import SseEncoder
from proctor.server.schemas.generation import ChatRequest
from proctor.server.schemas.responses import (
    CostReport,
    FinishReason,
    ForcedText,
    ThinkingReport,
    Usage,
    VoteReport,
)

FINISH_REASONS: Mapping[Finish, Literal["stop", "length"]] = {
    Finish.STOP: "stop",
    Finish.LENGTH: "length",
}
"""OpenAI's finish reasons; a cancelled choice has no response."""

FORCED_KINDS: Mapping[Forced, Literal["continuation", "wrap_up"]] = {
    Forced.CONTINUATION: "continuation",
    Forced.WRAP_UP: "wrap_up",
}
"""The kinds of forced text; markers are not part of the text."""


VOTE_METHODS: Mapping[
    VoteMethod, Literal["vote", "confidence", "first_agreement", "best_by_key"]
] = {
    VoteMethod.VOTE: "vote",
    VoteMethod.CONFIDENCE: "confidence",
    VoteMethod.FIRST_AGREEMENT: "first_agreement",
    VoteMethod.BEST_BY_KEY: "best_by_key",
}
"""The methods of votes, by their names."""


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

    def finish_reason(self, result: ChoiceResult) -> FinishReason:
        """Return OpenAI's finish reason of a choice that has finished."""
        if self.admission.ends_with_calls(result):
            return "tool_calls"
        return FINISH_REASONS[result.finish]

    def thinking(self, result: ChoiceResult) -> ThinkingReport:
        """Return the `thinking` object of a choice."""
        outcome, tier = result.outcome, self.admission.resolution.tier
        report: ThinkingReport = {
            "tier": None if tier is None else tier.name,
            "min_tokens": self.admission.jobs[result.choice].budget.minimum,
            "max_tokens": self.admission.max_thinking_tokens(result.choice),
            "tokens": outcome.tokens,
            "probe_tokens": result.probe_tokens,
            "forced_tokens": sum(outcome.forced.values()),
            "forced_spans": [_to_forced_text(span) for span in result.forced_spans],
            "continuations": outcome.continuations,
            "loops": sum(outcome.loops.values()),
            "end_reason": outcome.end_reason,
            "spilled_tokens": outcome.spilled,
            "clamped": self.admission.clamped[result.choice],
        }
        if result.votes is not None:
            report["votes"] = _to_report(result.votes, len(self.admission.jobs))
        return report

    def usage(self, results: Sequence[ChoiceResult]) -> Usage:
        """Return the `usage` of the whole request."""
        used = [result.used for result in results]
        tokens, thinking = (sum(counts) for counts in zip(*used, strict=True))
        usage = _usage(self.admission.prompt_tokens, TokenUsage(tokens, thinking))
        if (cached := self.request_cost.cached_tokens) is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        return usage

    def choice_usage(self, choice: int, used: TokenUsage) -> Usage:
        """Return the `usage` of one choice so far, for its chunks."""
        return _usage(len(self.admission.jobs[choice].prompt_ids), used)

    def cost(self) -> CostReport | None:
        """Return the `cost` of the whole request, or None if there are no prices."""
        cost = self.request_cost.cost(self.admission.prompt_tokens)
        if cost is None:
            return None
        return {
            "currency": cost.currency,
            "prompt": float(cost.prompt),
            "thinking": float(cost.thinking),
            "answer": float(cost.answer),
            "total": float(cost.total),
        }


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
    def encoder(self) -> SseEncoder:
        """Return the encoder of a streamed response."""

    @abstractmethod
    def body(
        self, items: Iterable[OutputItem], results: Sequence[ChoiceResult]
    ) -> Mapping[str, object]:
        """Return the body of a response that is not streamed.

        Args:
            items: the items of all choices, in the order of each choice.
            results: the results of the choices.
        """

    @property
    @abstractmethod
    def reports_usage(self) -> bool:
        """Whether every item of a stream has the usage of its choice so far."""

    @property
    def reports_progress(self) -> bool:
        """Whether a stream reports the progress of thinking that it does not include."""
        return False

    def transform(
        self, events: AsyncGenerator[StreamItem | ChoiceResult, None]
    ) -> AsyncGenerator[StreamItem | ChoiceResult, None]:
        """Return the items of the choices as they appear in the response."""
        return events


def answer_splitter(
    request: ChatRequest,
    tools: BoundTools | None,
    engine: Engine,
    job: Job,
    index: int,
    *,
    scored: Collection[Channel] = (),
) -> ChannelSplitter:
    """Return the splitter of the tokens of a choice whose answer may have tool calls.

    Args:
        request: the request.
        tools: the tools that the model may call, or None.
        engine: the engine that generates the choice.
        job: the choice's job.
        index: its index.
        scored: the channels whose log probabilities the response has.
    """
    reader = None if tools is None else tools.reader()
    answer = AnswerText(request.stop or (), reader, request.min_tokens or 0)
    with_ids = bool(request.return_token_ids)
    return ChannelSplitter(
        engine.codec, engine.model, job, index, answer, scored, with_ids=with_ids
    )


def _usage(prompt_tokens: int, used: TokenUsage) -> Usage:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": used.tokens,
        "total_tokens": prompt_tokens + used.tokens,
        "completion_tokens_details": {"reasoning_tokens": used.thinking},
    }


def _to_report(votes: VoteResult, chains: int) -> VoteReport:
    report: VoteReport = {
        "method": VOTE_METHODS[votes.method],
        "chains": chains,
        "stopped": votes.stopped,
        "tokens": votes.used.thinking,
        "answers": [
            {"answer": each.answer, "votes": each.votes, "weight": each.weight}
            for each in votes.answers
        ],
    }
    if votes.scorer_failed:
        report["fallback"] = "vote"
    return report


def _to_forced_text(span: ForcedSpan) -> ForcedText:
    return {
        "kind": FORCED_KINDS[span.kind],
        "start": span.start,
        "end": span.end,
        "tokens": span.tokens,
    }
