"""The fields of a request that set its thinking budget, in all their spellings."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from proctor.budget import MAX_CONTINUATIONS, Landing, OnLoop
from proctor.server.config.budgets import MAX_CHAINS, Keep, VoteMethod
from proctor.server.config.limits import MAX_NAME
from proctor.server.config.thinking.early_exit import AnswerKind, Method
from proctor.server.schemas.base import (
    Count,
    CountOrNoCap,
    Flag,
    Float,
    RequestModel,
    Text,
    one_as_list,
)

MAX_TEXTS = 16
MAX_TEXT_LENGTH = 1024

ContinuationText = Annotated[Text, Field(min_length=1, max_length=MAX_TEXT_LENGTH)]
ContinuationTexts = Annotated[list[ContinuationText], Field(min_length=1, max_length=MAX_TEXTS)]


class Effort(StrEnum):
    """The levels of OpenAI's `reasoning_effort`, and those that other APIs add."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


class EarlyExitOptions(RequestModel):
    """When thinking ends early because its answer is settled; see `thinking.early_exit`.

    Omitted options default to those of the tier.
    """

    method: Method | None = None
    """How a settled answer is recognized: by a low `entropy` of the token that would begin the
    answer now, by a trial `answer` that stays the same, or by the model's `confidence` in its
    thinking; `off` turns it off."""
    threshold: Annotated[Float, Field(gt=0, le=1000)] | None = None
    """With `entropy`, the entropy in nats up to which the answer counts as settled; with
    `confidence`, the mean confidence of a window from which on it does."""
    floor: Annotated[Float, Field(gt=0, le=1000)] | None = None
    """With `confidence`, the mean confidence of a window below which the thinking is lost."""
    every: Annotated[Count, Field(ge=1)] | None = None
    """The minimum number of thinking tokens between two probes; with `confidence`, the number of
    tokens in a window."""
    patience: Annotated[Count, Field(ge=1, le=16)] | None = None
    """How many probes or windows in a row must find the answer settled."""
    answer: AnswerKind | None = None
    """With `answer`, how trial answers are compared: by their last `number`, by the letter of a
    `choice`, or as a `text`."""
    opening: Annotated[Text, Field(max_length=256)] | None = None
    """The text with which answers begin, after the end marker."""


class ParallelOptions(RequestModel):
    """Several chains of thought for one answer; see `thinking.parallel`.

    Omitted options default to those of the tier.
    """

    chains: Annotated[Count, Field(ge=1, le=MAX_CHAINS)] | None = None
    """The number of chains, at most the server's `limits.max_choices`; 1 turns the vote off."""
    method: VoteMethod | None = None
    """How the answer is chosen: by a `vote` of all chains, by one in which the `confidence` of each
    chain in its tokens is its weight, or as soon as two of them agree (`first_agreement`),
    or by the server's scorer (`best_by_key`)."""
    answer: AnswerKind | None = None
    """How answers are compared: by their last `number`, by the letter of a `choice`, or as a
    `text`."""
    keep: Keep | None = None
    """What the response has in the place of the thinking: that of the `winner`, or a `summary` of
    the vote."""


class Thinking(RequestModel):
    """Options of the thinking budget."""

    type: Literal["enabled", "disabled", "auto", "adaptive"] | None = None
    """`disabled` turns thinking off, `enabled` requires some thinking, and `auto` (in Anthropic's
    API, `adaptive`) lets the router choose."""
    budget_tokens: CountOrNoCap | None = None
    """Alias of `max_thinking_tokens`, as in Anthropic's API."""
    min_tokens: Count | None = None
    """Alias of `min_thinking_tokens`."""
    continuations: Annotated[Count, Field(le=MAX_CONTINUATIONS)] | None = None
    """The number of attempts to close the thinking that are replaced by a continuation."""
    continuation_text: (
        Annotated[
            ContinuationTexts,
            BeforeValidator(
                one_as_list, json_schema_input_type=ContinuationText | ContinuationTexts
            ),
        ]
        | None
    ) = None
    """The text of the continuations: a string, or several strings used in rotation."""
    wrap_up_text: Annotated[Text, Field(max_length=MAX_TEXT_LENGTH)] | None = None
    """The text to insert before a forced end of the thinking. It counts against the budget."""
    on_loop: OnLoop | None = None
    """What to do when the thinking repeats itself."""
    landing: Landing | None = None
    """Where to close thinking that reaches its maximum: at the end of a sentence shortly before, or
    exactly at the maximum."""
    early_exit: EarlyExitOptions | None = None
    """Ends the thinking once probes find that its answer is settled. The tokens of the probes count
    against the budget."""
    parallel: ParallelOptions | None = None
    """Generates several chains of thought at a time, and responds with the answer that they vote
    for. They share the maximum of thinking tokens and `max_tokens`. Chat completions only."""
    logprobs: Flag | None = None
    """Whether `logprobs` also returns the log probabilities of the thinking's tokens."""


class Reasoning(RequestModel):
    """The thinking budget, as in OpenRouter's API."""

    effort: Effort | None = None
    """Alias of `reasoning_effort`."""
    max_tokens: CountOrNoCap | None = None
    """Alias of `max_thinking_tokens`."""
    enabled: Flag | None = None
    """Alias of a `thinking.type` of `enabled` or `disabled`."""
    exclude: Flag | None = None
    """Whether to leave the thinking out of the response. The model still thinks."""


class NvExt(RequestModel):
    """The thinking budget, as in NVIDIA's API."""

    max_thinking_tokens: CountOrNoCap | None = None
    """Alias of the top-level field of this name."""


class BudgetFields(RequestModel):
    """The fields that set the thinking budget."""

    max_thinking_tokens: CountOrNoCap | None = None
    """The maximum number of thinking tokens in each choice. 0 turns thinking off, and -1 sets no
    limit but the context."""
    min_thinking_tokens: Count | None = None
    """The minimum number of thinking tokens in each choice."""
    budget_tier: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The name of a tier, or `auto` to let the router choose one."""
    thinking: Thinking | None = None
    """Options of the thinking budget."""
    reasoning_effort: Effort | None = None
    """The reasoning effort, which selects a tier by the server's configuration."""
    reasoning: Reasoning | None = None
    """The thinking budget, as in OpenRouter's API."""
    thinking_token_budget: CountOrNoCap | None = None
    """Alias of `max_thinking_tokens`, as in vLLM."""
    thinking_budget: CountOrNoCap | None = None
    """Alias of `max_thinking_tokens`, as in Qwen's API."""
    enable_thinking: Flag | None = None
    """Alias of a `thinking.type` of `enabled` or `disabled`, as in Qwen's API."""
    nvext: NvExt | None = None
    """The thinking budget, as in NVIDIA's API."""
    reasoning_budget_tokens: CountOrNoCap | None = None
    """Alias of `max_thinking_tokens`, as in llama.cpp."""
    thinking_budget_tokens: CountOrNoCap | None = None
    """Alias of `max_thinking_tokens`, as in llama.cpp."""
    reasoning_max_tokens: CountOrNoCap | None = None
    """Alias of `max_thinking_tokens`."""
    think: Flag | Effort | None = None
    """Alias of `thinking.type` if a boolean, or of `reasoning_effort` if a string, as in Ollama."""
