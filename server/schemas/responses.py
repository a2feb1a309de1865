"""Responses, as they are described: in `/openapi.json` and to the type checker.

The text under each field is its description.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, NotRequired

import orjson
from fastapi import Response
from pydantic import with_config
from typing_extensions import TypedDict

from proctor.budget import EndReason, Landing, OnLoop


class Source(StrEnum):
    """What decided a budget."""

    EXPLICIT = "explicit"
    EFFORT = "effort"
    ROUTER = "router"
    DEFAULT = "default"


@with_config(use_attribute_docstrings=True, extra="forbid")
class ResponseSchema(TypedDict):
    """A response, or a part of one; it has no other fields than these."""


def as_json(shape: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Response:
    """A response of this content."""
    return Response(orjson.dumps(shape), media_type="application/json", headers=headers)


class ErrorDetail(ResponseSchema):
    """What went wrong."""

    message: str
    """What is wrong, and what to do."""
    type: Literal["invalid_request_error", "rate_limit_error", "insufficient_quota", "server_error"]
    """Whose fault it is: the request's, that of too many requests or of a key whose money is
    spent, or the server's."""
    param: str | None
    """The request's field at fault, as a path; null if no field is."""
    code: str | None
    """OpenAI's code, where it has one for this."""


class Error(ResponseSchema):
    """An error, in OpenAI's shape."""

    error: ErrorDetail
    """All that there is to say of it."""


class CalledFunction(ResponseSchema):
    """A function that the model calls."""

    name: str
    """Its name."""
    arguments: str
    """Its arguments in JSON, as the model wrote them."""


class AnswerCall(ResponseSchema):
    """A tool call."""

    id: str
    """What the tool's message must name."""
    type: Literal["function"]
    """The kind of call."""
    function: CalledFunction
    """What to call."""


class AnswerMessage(ResponseSchema):
    """What the model says. Where its thinking stands, `reasoning_format` decides."""

    role: Literal["assistant"]
    """Who speaks."""
    content: str | None
    """The answer; null where there are tool calls alone."""
    reasoning_content: NotRequired[str | None]
    """The thinking; null where there is none, or where it stands in the content or nowhere."""
    reasoning: NotRequired[str | None]
    """The thinking, under the name that other servers give it; null where there is none."""
    tool_calls: NotRequired[list[AnswerCall]]
    """The functions to call."""


class Candidate(ResponseSchema):
    """A token that could have come."""

    token: str
    """Its text."""
    logprob: float
    """The natural logarithm of its probability, -9999 where that is zero."""
    bytes: list[int]
    """Its text in bytes, for a token can be part of a character."""


class TokenScore(ResponseSchema):
    """A token that came."""

    token: str
    """Its text."""
    logprob: float
    """The natural logarithm of its probability, -9999 where that is zero."""
    bytes: list[int]
    """Its text in bytes, for a token can be part of a character."""
    top_logprobs: list[Candidate]
    """The likeliest tokens in its place, as many as were asked for."""


class Logprobs(ResponseSchema):
    """Log probabilities of tokens, before temperature, masks and penalties."""

    content: NotRequired[list[TokenScore]]
    """Those of the answer."""
    reasoning_content: NotRequired[list[TokenScore]]
    """Those of the thinking, with `thinking.logprobs`."""


class PromptCandidate(ResponseSchema):
    """A token of the prompt, or one that could have stood in its place."""

    logprob: float
    """The natural logarithm of its probability, -9999 where that is zero."""
    rank: int
    """How many tokens are at least as likely, itself included."""
    decoded_token: str
    """Its text."""


PromptLogprobs = list[dict[str, PromptCandidate] | None]
"""Log probabilities of the prompt's tokens, by token id; the first one has none."""


class TextLogprobs(ResponseSchema):
    """Log probabilities of a text's tokens, an end of turn included, in OpenAI's older shape."""

    tokens: list[str]
    """Their texts."""
    token_logprobs: list[float | None]
    """Their natural logarithms, -9999 where the probability is zero; null for an echoed prompt's
    first token."""
    top_logprobs: list[dict[str, float] | None]
    """Those of the likeliest tokens in their place, and their own, by text."""
    text_offset: list[int]
    """Where in the choice's text each begins, in Unicode code points."""


class ForcedText(ResponseSchema):
    """Text that the server put into a thinking."""

    kind: Literal["continuation", "wrap_up"]
    """Which."""
    start: int
    """Offset of its first character in the text of the whole thinking, in Unicode code points."""
    end: int
    """The offset after its last."""
    tokens: int
    """How many tokens it is."""


class ThinkingReport(ResponseSchema):
    """What became of one choice's thinking."""

    tier: str | None
    """The tier of its budget; null for a budget of no tier."""
    min_tokens: int
    """Fewest thinking tokens that were enforced."""
    max_tokens: int | None
    """Most thinking tokens that were enforced; null if no number was asked for."""
    tokens: int
    """Thinking tokens, markers excluded."""
    forced_tokens: int
    """Tokens that the server chose: continuations, wrap-up and markers."""
    forced_spans: list[ForcedText]
    """Where in the text of the thinking the server's own words stand, in order; in completions,
    where in their whole text."""
    continuations: int
    """Attempts to close the thinking that were turned down."""
    loops: int
    """Loops that were found in the thinking; from the first that closed it on, nothing holds it to
    its minimum."""
    end_reason: EndReason
    """Why the thinking ended."""
    clamped: bool
    """Whether less was enforced than was asked for, by the request, its tier or the default."""


class ThinkingProgress(ResponseSchema):
    """How far a thinking is that is not shown."""

    tokens: int
    """Thinking tokens so far."""
    max_tokens: int | None
    """Most thinking tokens, if a number was asked for."""


class UsageDetails(ResponseSchema):
    """Parts of the completion."""

    reasoning_tokens: int
    """Thinking tokens of all choices, counted on token ids."""


class PromptDetails(ResponseSchema):
    """Parts of the prompt."""

    cached_tokens: int
    """Those that the engine had in its cache."""


class Usage(ResponseSchema):
    """What the request used, in tokens."""

    prompt_tokens: int
    """Of the prompt, once for all choices."""
    completion_tokens: int
    """Generated, in all choices: thinking, markers, answers and ends of turn."""
    total_tokens: int
    """Both together."""
    completion_tokens_details: UsageDetails
    """How much of the completion was what."""
    prompt_tokens_details: NotRequired[PromptDetails]
    """How much of the prompt was what, where the engine says."""


class CostReport(ResponseSchema):
    """What the request cost, by the operator's prices."""

    currency: str
    """The unit of the rest."""
    prompt: float
    """For the prompt's tokens."""
    thinking: float
    """For thinking tokens and markers."""
    answer: float
    """For the answers' tokens."""
    total: float
    """All together."""


FinishReason = Literal["stop", "length", "tool_calls"]


class ChatChoice(ResponseSchema):
    """One of the answers."""

    index: int
    """Which one."""
    message: AnswerMessage
    """What the model says."""
    logprobs: Logprobs | None
    """Log probabilities, where they were asked for."""
    finish_reason: FinishReason
    """Why it ended."""
    thinking: ThinkingReport
    """What became of its thinking."""
    token_ids: NotRequired[list[int]]
    """All tokens that were generated, with `return_token_ids`."""


class ChatCompletion(ResponseSchema):
    """The answer to a chat, in one piece."""

    id: str
    """Names this completion."""
    object: Literal["chat.completion"]
    """What this is."""
    created: int
    """When it was asked for, as unix time in seconds."""
    model: str
    """The model's own name, whichever of its names the request gave."""
    choices: list[ChatChoice]
    """The answers."""
    prompt_logprobs: NotRequired[PromptLogprobs]
    """Log probabilities of the prompt's tokens, with `prompt_logprobs`: by token id, and null
    for the first one."""
    prompt_token_ids: NotRequired[list[int]]
    """The prompt's tokens, with `return_token_ids`."""
    usage: Usage
    """What it used."""
    cost: CostReport | None
    """What it cost; null where no prices are set."""


class FunctionDelta(ResponseSchema):
    """Some of a function that the model calls."""

    name: NotRequired[str]
    """Its name, with the call's first delta."""
    arguments: str
    """The next piece of its arguments' JSON."""


class CallDelta(ResponseSchema):
    """Some of a tool call."""

    index: int
    """Which of the answer's calls."""
    id: NotRequired[str]
    """The call's id, with its first delta."""
    type: NotRequired[Literal["function"]]
    """The kind of call, with its first delta."""
    function: FunctionDelta
    """What to call."""


class MessageDelta(ResponseSchema):
    """Some of what the model says: of the thinking, or of the answer, never of both."""

    role: NotRequired[Literal["assistant"]]
    """Who speaks, with a choice's first delta."""
    content: NotRequired[str]
    """The next piece of the answer."""
    reasoning_content: NotRequired[str | None]
    """The next piece of the thinking; null where this is none."""
    reasoning: NotRequired[str | None]
    """The next piece of the thinking, under the name that other servers give it."""
    tool_calls: NotRequired[list[CallDelta]]
    """The next piece of a tool call."""


class ChunkChoice(ResponseSchema):
    """What one event tells of one of the answers."""

    index: int
    """Which one."""
    delta: MessageDelta
    """What is new."""
    logprobs: NotRequired[Logprobs | None]
    """Log probabilities of the new tokens, where they were asked for."""
    finish_reason: FinishReason | None
    """Why it ended, with its last chunk."""
    thinking: NotRequired[ThinkingReport | ThinkingProgress]
    """What became of its thinking, with its last chunk; before that, how far a thinking is
    that is not shown."""
    token_ids: NotRequired[list[int]]
    """The next tokens, with `return_token_ids`."""


class ChatCompletionChunk(ResponseSchema):
    """One event of a streamed answer."""

    id: str
    """Names the completion."""
    object: Literal["chat.completion.chunk"]
    """What this is."""
    created: int
    """When it was asked for, as unix time in seconds."""
    model: str
    """The model's own name, whichever of its names the request gave."""
    choices: list[ChunkChoice]
    """What is new; empty in the chunk that tells what was used."""
    prompt_token_ids: NotRequired[list[int]]
    """The prompt's tokens, with `return_token_ids` in a choice's first chunk."""
    usage: NotRequired[Usage]
    """What was used, with `stream_options.include_usage`, in a last chunk of its own; with
    `stream_options.continuous_usage_stats` in every chunk what its choice has used so far."""
    cost: NotRequired[CostReport | None]
    """What it cost, beside `usage`; null where no prices are set."""


class TextChoice(ResponseSchema):
    """One of the texts that follow the prompt."""

    index: int
    """Which one."""
    text: str
    """All that was generated: thinking, markers and answer; with `echo` after the prompt."""
    logprobs: TextLogprobs | None
    """Log probabilities, where they were asked for."""
    finish_reason: Literal["stop", "length"]
    """Why it ended."""
    thinking: ThinkingReport
    """What became of its thinking."""
    prompt_logprobs: NotRequired[PromptLogprobs]
    """Log probabilities of its prompt's tokens, with `prompt_logprobs`: by token id, and null
    for the first one."""
    prompt_token_ids: NotRequired[list[int]]
    """Its prompt's tokens, with `return_token_ids`."""
    token_ids: NotRequired[list[int]]
    """All tokens that were generated, with `return_token_ids`."""


class TextCompletion(ResponseSchema):
    """What follows a prompt, in one piece."""

    id: str
    """Names this completion."""
    object: Literal["text_completion"]
    """What this is."""
    created: int
    """When it was asked for, as unix time in seconds."""
    model: str
    """The model's own name, whichever of its names the request gave."""
    choices: list[TextChoice]
    """The texts."""
    usage: Usage
    """What it used."""
    cost: CostReport | None
    """What it cost; null where no prices are set."""


class TextDelta(ResponseSchema):
    """What one event tells of one of the texts."""

    index: int
    """Which one."""
    text: str
    """The next piece; the first one is the prompt, with `echo`."""
    logprobs: TextLogprobs | None
    """Log probabilities of the new tokens, where they were asked for."""
    finish_reason: Literal["stop", "length"] | None
    """Why it ended, with its last chunk."""
    thinking: NotRequired[ThinkingReport]
    """What became of its thinking, with its last chunk."""
    prompt_token_ids: NotRequired[list[int]]
    """Its prompt's tokens, with `return_token_ids` in its first chunk."""
    token_ids: NotRequired[list[int]]
    """The next tokens, with `return_token_ids`."""


class TextCompletionChunk(ResponseSchema):
    """One event of a streamed text."""

    id: str
    """Names the completion."""
    object: Literal["text_completion"]
    """What this is."""
    created: int
    """When it was asked for, as unix time in seconds."""
    model: str
    """The model's own name, whichever of its names the request gave."""
    choices: list[TextDelta]
    """What is new; empty in the chunk that tells what was used."""
    usage: NotRequired[Usage]
    """What was used, with `stream_options.include_usage`, in a last chunk of its own; with
    `stream_options.continuous_usage_stats` in every chunk what its choice has used so far."""
    cost: NotRequired[CostReport | None]
    """What it cost, beside `usage`; null where no prices are set."""


class BudgetReport(ResponseSchema):
    """A budget, as it would be enforced."""

    min_tokens: int
    """Fewest thinking tokens."""
    max_tokens: int | None
    """Most thinking tokens."""
    continuations: int
    """How many attempts to close the thinking would be turned down."""
    on_loop: OnLoop
    """What would be done about a thinking that repeats itself."""
    landing: Landing
    """Where a thinking that runs into its maximum would be closed."""


class SignalReport(ResponseSchema):
    """Something that the router saw in the prompt."""

    name: str
    """What it saw."""
    weight: float
    """How much it speaks for more thinking; below zero, for less."""


class RouterReport(ResponseSchema):
    """What the router found."""

    level: str
    """The level of difficulty that it chose."""
    probabilities: dict[str, float]
    """How likely each level is."""
    signals: list[SignalReport]
    """What it saw, the strongest first."""


class Estimate(ResponseSchema):
    """What an answer could cost."""

    currency: str
    """The unit of the rest."""
    least: float | None
    """With the least thinking and the shortest answer; where the machine has the price and not
    its tokens, as the cheapest of the tier's last answers. Null if there were none, as the rest."""
    expected: float | None
    """With as many tokens as the tier's last answers had in the mean."""
    most: float | None
    """With the dearest use of all the tokens that it may have, or as the dearest of the last."""


class RouteReport(ResponseSchema):
    """What a chat request would get, and why."""

    tier: str | None
    """The tier of its budget; null for a budget of no tier."""
    source: Source
    """What decided."""
    field: str | None
    """The request's field that decided, if one did."""
    budget: BudgetReport
    """The budget, as it would be enforced."""
    clamped_by: list[str]
    """What would cut the budget that was asked for: `operator`, `key`, `turn`, `prompt`, `room`,
    `price`."""
    router: RouterReport | None
    """What the router found; null if it was not asked."""
    prompt_tokens: int
    """Tokens of the prompt."""
    cost: Estimate | None
    """What the answer could cost; null where no prices are set."""


class Feedback(ResponseSchema):
    """An outcome that the ledger has taken."""

    request_id: str
    """The request's id, as it was given."""
    score: float
    """How right the answer was: 1 is right, 0 is wrong."""


class ModelCard(ResponseSchema):
    """One name of the model served."""

    id: str
    """The name, as requests give it in `model`."""
    object: Literal["model"]
    """What this is."""
    created: int
    """When it was loaded, as unix time in seconds."""
    owned_by: str
    """Who serves it."""
    root: str
    """The model's own name, of which `id` may be an alias."""
    max_model_len: int
    """Most tokens of prompt and completion together."""


class ModelList(ResponseSchema):
    """The model served, under each of its names."""

    object: Literal["list"]
    """What this is."""
    data: list[ModelCard]
    """One entry for each name, the model's own first."""


class TierCard(ResponseSchema):
    """A named budget."""

    name: str
    """The name, as requests give it in `budget_tier`."""
    min_tokens: int
    """Fewest thinking tokens."""
    max_tokens: int
    """Most thinking tokens; -1 is no cap but the context."""
    continuations: int
    """How many attempts to close the thinking it turns down."""
    temperature: float | None
    """For requests that set none; null is the model's own."""
    top_p: float | None
    """The same."""


class TierList(ResponseSchema):
    """The named budgets."""

    object: Literal["list"]
    """What this is."""
    default_tier: str
    """What a request gets that says nothing: a tier's name, `auto` if the router chooses,
    `custom` if it is of no tier."""
    data: list[TierCard]
    """From least to most."""


class Tokenized(ResponseSchema):
    """The tokens of a text or a conversation."""

    count: int
    """How many there are."""
    max_model_len: int
    """Most tokens of prompt and completion together."""
    tokens: list[int]
    """Their ids."""
    token_strs: list[str] | None
    """Each as the vocabulary spells it, where that was asked for."""


class Detokenized(ResponseSchema):
    """The text of tokens."""

    prompt: str
    """The text, special tokens included."""


@with_config(use_attribute_docstrings=True, extra="allow")
class TokenizerInfo(TypedDict):
    """What the tokenizer is set to, as in its `tokenizer_config.json`."""

    tokenizer_class: str
    """Its class."""
    chat_template: NotRequired[str]
    """Makes the prompt of a conversation."""


class Version(ResponseSchema):
    """Which server this is."""

    version: str
    """Proctor's version."""


class ServerLoad(ResponseSchema):
    """How busy the server is."""

    server_load: int
    """Requests that are being answered or wait for it."""


class Health(ResponseSchema):
    """The process runs."""

    status: Literal["ok"]
    """Always `ok`: a process that does not run does not answer."""


class Ready(ResponseSchema):
    """The engine can answer."""

    status: Literal["ready"]
    """Always `ready`: before and after that the answer is a 503."""
