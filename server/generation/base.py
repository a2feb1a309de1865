"""The types that describe a request from its admission to its response, and its observers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from proctor.budget import Outcome, TokenBudget
from proctor.router import Prediction
from proctor.server.channels.deltas import TextDelta, TokenUsage, ToolCallDelta
from proctor.server.channels.forced_spans import ForcedSpan
from proctor.server.config.budgets import Parallel, VoteMethod
from proctor.server.config.sessions import Limit
from proctor.server.engines.base import Engine, Finish, Job, TokenLogprob
from proctor.server.engines.tool_calls import BoundTools
from proctor.server.generation.resolution import Resolution
from proctor.server.schemas.base import RequestModel
from proctor.server.turns.turn import Turn

PROGRESS_SECONDS = 0.5
"""The interval of progress items."""


@dataclass(frozen=True, slots=True)
class RoutingResult:
    """The difficulty level of a request.

    Attributes:
        level: one of `router.LEVELS`.
        prediction: the classifier's prediction.
        started_ns: when classification started, in nanoseconds since the Unix epoch.
        ended_ns: when it ended.
    """

    level: str
    prediction: Prediction
    started_ns: int
    ended_ns: int


@dataclass(frozen=True, slots=True)
class ParallelPlan:
    """How several chains of thought for one answer share its tokens.

    Attributes:
        parallel: the options of the request.
        thinking_tokens: the maximum number of thinking tokens of all chains together.
        cap: the maximum number of thinking tokens of one chain, whatever the others leave.
        other_tokens: the maximum number of tokens of each chain besides its thinking.
    """

    parallel: Parallel
    thinking_tokens: int
    cap: int
    other_tokens: int

    @property
    def max_tokens(self) -> int:
        """The maximum number of tokens of all chains together."""
        return self.thinking_tokens + self.parallel.chains * self.other_tokens


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted request.

    Attributes:
        jobs: one for each choice; with `parallel`, one for each chain of the only choice.
        engine: generates them.
        resolution: its budget and the budget's origin.
        routing: the router's result, or None if the router was not used.
        clamped_by: what reduced the requested budget: the owner of a ceiling, or one of the
            reasons in `proctor.server.admission.budget_resolution`.
        tools: the tools in the model's format, or None if the model may not call any.
        call_named: whether `tool_choice` names a function.
        clamped: whether the budget was clamped, for each job.
        choices_per_prompt: number of consecutive jobs with the same prompt.
        turn: the turn of the conversation that the request belongs to.
        reduced_by: the limits of the session that reduced the thinking or the length.
        max_seconds: the time that the limits of the session leave, infinite without any.
        parallel: how the jobs share the tokens of one answer, or None if each has its own.
    """

    jobs: tuple[Job, ...]
    engine: Engine
    resolution: Resolution
    routing: RoutingResult | None
    clamped_by: tuple[str, ...]
    tools: BoundTools | None
    call_named: bool
    clamped: tuple[bool, ...]
    choices_per_prompt: int
    turn: Turn = field(default_factory=Turn)
    reduced_by: tuple[Limit, ...] = ()
    max_seconds: float = math.inf
    parallel: ParallelPlan | None = None

    @property
    def choices(self) -> int:
        """The number of choices in the response."""
        return len(self.jobs) if self.parallel is None else 1

    @property
    def max_tokens(self) -> int:
        """The maximum number of tokens that all jobs together generate."""
        if self.parallel is not None:
            return self.parallel.max_tokens
        return sum(job.sampling.max_tokens + job.probe_allowance for job in self.jobs)

    @property
    def total_thinking_tokens(self) -> int:
        """The maximum number of thinking tokens of all jobs together."""
        if self.parallel is not None:
            return self.parallel.thinking_tokens
        return sum(job.max_thinking_tokens or 0 for job in self.jobs)

    @property
    def prompt_tokens(self) -> int:
        """The number of prompt tokens, each prompt counted once."""
        return sum(len(job.prompt_ids) for job in self.jobs[:: self.choices_per_prompt])

    @property
    def enforced(self) -> TokenBudget:
        """The enforced budget of the choices of the first prompt."""
        return self.jobs[0].budget

    @property
    def enforced_maximum(self) -> int | None:
        """The enforced maximum of the choices of the first prompt, of all chains of each."""
        return self.enforced.maximum if self.parallel is None else self.parallel.thinking_tokens

    def max_thinking_tokens(self, choice: int) -> int | None:
        """Return the enforced maximum of a choice, or None if the budget has no maximum.

        It includes the probes of an early exit, and all chains that vote on the choice.
        """
        if self.resolution.budget.max_tokens is None:
            return None
        if self.parallel is not None:
            return self.parallel.thinking_tokens
        return self.jobs[choice].max_thinking_tokens

    def ends_with_calls(self, result: "ChoiceResult") -> bool:
        """Return whether OpenAI's finish reason of a choice is `tool_calls`.

        A call of the function that `tool_choice` names ends with `stop`, as with OpenAI.
        """
        return result.calls > 0 and result.finish is Finish.STOP and not self.call_named

    def finish_reason(self, result: "ChoiceResult") -> str:
        """Return OpenAI's finish reason of a choice, or `abort` if it was cancelled or failed."""
        return "tool_calls" if self.ends_with_calls(result) else result.finish.value


@dataclass(frozen=True, slots=True)
class AdmittedRequest:
    """A request that was admitted, as its observers see it.

    Attributes:
        id: the completion's id.
        operation: `chat` or `text_completion`, after OpenTelemetry's `gen_ai.operation.name`.
        model: the model's name.
        requested_model: the model's name in the request; it may be an alias.
        request: the client's request.
        stream: whether the response is streamed.
        admission: its budget and jobs.
        key: the name of its key, empty where no keys are required.
        session: the ID of its session, or None if the request names none.
    """

    id: str
    operation: str
    model: str
    requested_model: str | None
    request: RequestModel
    stream: bool
    admission: Admission
    key: str
    session: str | None = None


class PromptLogprobs(NamedTuple):
    """Log probabilities of the tokens of one choice's prompt, from the second token on."""

    choice: int
    scores: Sequence[TokenLogprob]


class Progress(NamedTuple):
    """The number of thinking tokens that one choice has generated so far."""

    choice: int
    tokens: int
    used: TokenUsage | None = None


OutputItem = TextDelta | ToolCallDelta | PromptLogprobs
"""An item that is part of the response."""

StreamItem = OutputItem | Progress
"""An item of a stream, while a choice runs."""


class AnswerVotes(NamedTuple):
    """The votes for one answer.

    Attributes:
        answer: the answer in its canonical form.
        votes: the number of chains that gave it.
        weight: the sum of their weights.
    """

    answer: str
    votes: int
    weight: float


@dataclass(frozen=True, slots=True)
class VoteResult:
    """How several chains have voted on an answer.

    Attributes:
        method: how the answer was chosen.
        winner: index of the chain with the answer.
        answers: the answers that chains gave, those with the most votes first.
        stopped: the number of chains that were stopped, as the vote was decided.
        used: the token usage of all chains together.
        scorer_failed: whether the answer was chosen by a vote, as a scorer has failed.
    """

    method: VoteMethod
    winner: int
    answers: tuple[AnswerVotes, ...]
    stopped: int
    used: TokenUsage
    scorer_failed: bool = False


@dataclass(frozen=True, slots=True)
class ChoiceResult:
    """The result of one choice, or of one of the chains that vote on it.

    Attributes:
        choice: index of the choice.
        finish: why generation ended; ABORT if it was cancelled or failed.
        outcome: the outcome of its thinking.
        forced_spans: where forced text is in its text.
        tokens: number of generated tokens; markers, end of turn and probes included.
        answer_tokens: number of tokens in the answer.
        calls: number of tool calls.
        token_ids: the ids of all generated tokens.
        stop: the stop string that ended the answer, or None.
        probe_tokens: number of tokens that probes for an early exit have generated.
        votes: how the chains have voted, in the result of a choice of several chains. All other
            attributes are those of the chain that won.
    """

    choice: int
    finish: Finish
    outcome: Outcome
    forced_spans: tuple[ForcedSpan, ...]
    tokens: int
    answer_tokens: int
    calls: int
    token_ids: Sequence[int] = ()
    stop: str | None = None
    probe_tokens: int = 0
    votes: VoteResult | None = None

    @property
    def thinking_tokens(self) -> int:
        """The number of tokens that were spent on thinking, probes included."""
        return self.outcome.tokens + self.probe_tokens

    @property
    def used(self) -> TokenUsage:
        """The token usage of the choice, all its chains included."""
        if self.votes is not None:
            return self.votes.used
        return TokenUsage(self.tokens, self.thinking_tokens)


class RunningChain(Protocol):
    """One of the chains of thought for a choice, while it runs."""

    @property
    def used(self) -> TokenUsage:
        """The token usage so far."""

    @property
    def is_settled(self) -> bool:
        """Whether its thinking ends early, as its answer is settled."""

    @property
    def confidence(self) -> float:
        """The geometric mean of the probabilities of its tokens, if the job reports them, or 1."""

    def stop(self) -> None:
        """End the chain where it is, if the engine still generates it."""


class RequestObserver:
    """Follows one request; each method is called when something happens, and does nothing here.

    A refused request is only `finished`. A choice that starts always finishes, also when it
    fails or is cancelled, and may do so after the response has ended, but before `finished`.
    """

    def admitted(self, admitted: AdmittedRequest) -> None:
        """The request was admitted."""

    def choice_started(self, choice: int, so_far: Callable[[], ChoiceResult]) -> None:
        """A choice enters the engine.

        Args:
            choice: which one.
            so_far: returns what its result would be if it were cancelled now, without the
                spans of forced text.
        """

    def first_token(self, choice: int) -> None:
        """The first tokens of a choice have arrived."""

    def prompt_cached(self, choice: int, tokens: int) -> None:
        """The engine reports how many tokens of a choice's prompt were in its prefix cache."""

    def choice_left_engine(self, choice: int) -> None:
        """A choice has left the engine."""

    def item(self, item: TextDelta | ToolCallDelta) -> None:
        """Text or a tool call is about to be sent, the first of a choice's channel."""

    def choice_finished(self, result: ChoiceResult) -> None:
        """A choice has finished."""

    def voted(self, votes: VoteResult) -> None:
        """The chains of the choice have voted, and all of them have finished."""

    def finished(self, status: int, seconds: float) -> None:
        """The response has ended, and every choice has finished.

        Args:
            status: the HTTP status, or what broke the response off.
            seconds: from the first byte of the request.
        """


class ResponseObserver(RequestObserver):
    """Follows one request until the last byte of its response.

    Attributes:
        status: the HTTP status that the request counts under; of a response that breaks off, that
            of the error.
        headers: HTTP headers for an engine elsewhere, such as the trace's.
        follows_items: whether `item` is to be called for every item, not only for the first of a
            choice's channel.
    """

    status: int
    follows_items: bool
    headers: Mapping[str, str]

    async def settle(self) -> None:
        """Release what the request has reserved and not used, before its last byte is sent."""
