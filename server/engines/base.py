"""The interface between the gateway and an inference engine: token ids in, token ids out.

An engine implements `Engine` and provides a `Codec` for its model's chat template and
tokenizer. Budgets, the split into reasoning and answer, and accounting are implemented above
this interface and are the same for every engine. Structured output and tool calls, which are
optional, are defined in `proctor.server.engines.tool_calls`.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from proctor.budget import (
    UNKNOWN_VOCABULARY,
    EndReason,
    EngineRecord,
    Markers,
    Move,
    TokenBudget,
    Vocabulary,
)
from proctor.budget.confidence import ConfidenceExit
from proctor.server.config.thinking.early_exit import EarlyExit
from proctor.server.engines.processes.stall import StallTimeouts
from proctor.server.engines.tool_calls import Constraint, ToolFormat


class Finish(StrEnum):
    """Why generation ended, by vLLM's names.

    Attributes:
        STOP: an end-of-turn token was generated.
        LENGTH: `Sampling.max_tokens` tokens were generated.
        ABORT: the engine gave the job up.
    """

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The served model.

    Attributes:
        name: the name that clients use.
        context_length: maximum number of tokens of prompt and completion together (vLLM's
            `max_model_len`).
        markers: the tokens that start and end a thinking block, and the end-of-turn tokens.
        created: Unix time at which the model was loaded, in seconds.
        vocabulary: what budgets need to know of the text of each token: where sentences and
            characters end.
    """

    name: str
    context_length: int
    markers: Markers
    created: int
    vocabulary: Vocabulary = UNKNOWN_VOCABULARY


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt: a rendered conversation, or one that the client wrote itself.

    Attributes:
        ids: its token ids.
        opened: whether it ends inside a thinking block.
        may_think: whether thinking was to be disabled, but the chat template has no switch
            for that, so that the model may still open a block.
    """

    ids: tuple[int, ...]
    opened: bool
    may_think: bool = False


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of one choice. None selects the model's own default.

    Attributes:
        max_tokens: maximum number of tokens to generate: thinking, markers and answer. With 0
            the engine only prefills the prompt, for its log probabilities.
        temperature: 0 is greedy sampling.
        top_p: the cumulative probability of the tokens to sample from (nucleus sampling).
        top_k: how many of the most likely tokens to sample from; -1 is all.
        min_p: the minimum probability of a token, relative to the most likely one.
        presence_penalty: subtracted from the logits of tokens generated so far.
        frequency_penalty: subtracted from the logits of tokens generated so far, once for each
            occurrence.
        repetition_penalty: divides the logits of tokens that occur in the prompt or the output.
        logit_bias: added to the logits, by token id.
        seed: makes sampling reproducible. None draws a random seed.
        top_logprobs: how many of the most likely tokens to report at each position, besides the
            log probability of the sampled token. None reports no log probabilities.
        prompt_logprobs: the same for each position of the prompt but the first.
        constraint: the structured output that the answer must match.
    """

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None
    top_logprobs: int | None = None
    prompt_logprobs: int | None = None
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One choice to generate.

    Attributes:
        id: unique among the jobs of this engine's lifetime (vLLM's request id).
        prompt_ids: token ids of the prompt.
        sampling: the sampling parameters.
        budget: the thinking budget, which the engine must enforce.
        owner: the name of the request's API key; empty without one.
        session: the session that the request names, whose prompts continue each other.
        headers: HTTP headers for an engine elsewhere, such as the trace's.
        priority: lower values are handled earlier, where the engine schedules by priority.
        moved_for: the request's field for which `Engine.move_maximum` may be called; empty if the
            maximum stays.
        early_exit: when the thinking ends early, or None.
        probe_allowance: the number of tokens for the probes of an early exit, which the budget's
            maximum does not include.
    """

    id: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    budget: TokenBudget
    owner: str = ""
    session: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    moved_for: str = ""
    early_exit: EarlyExit | None = None
    probe_allowance: int = 0

    @property
    def confidence(self) -> ConfidenceExit | None:
        """When the engine itself ends the thinking early, or None."""
        return None if self.early_exit is None else self.early_exit.confidence

    @property
    def max_thinking_tokens(self) -> int | None:
        """The maximum of thinking tokens, the probes of an early exit included, or None."""
        maximum = self.budget.maximum
        return None if maximum is None else maximum + self.probe_allowance

    @property
    def has_record(self) -> bool:
        """Whether the engine may have to record something besides the tokens."""
        return self.budget.demands_thinking or bool(self.moved_for)


class TokenLogprob(NamedTuple):
    """Log probabilities at one position, before temperature, logits masks and penalties.

    Attributes:
        token: id of the token at this position.
        logprob: the natural logarithm of its probability.
        top: ids and log probabilities of the most likely tokens, in descending order.
        rank: the token's rank by probability, from 1 on: how many tokens are at least as
            likely, itself included. 0 if the engine does not report it.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    rank: int = 0


class Delta(NamedTuple):
    """What was generated since the previous delta.

    Attributes:
        token_ids: at least one token; only the last delta may have none. Includes the
            end-of-turn token.
        finish: why generation ended; only set on the last delta.
        logprobs: one for each token, if `Sampling.top_logprobs` is set.
        cached_tokens: on the first or the last delta, the number of prompt tokens served from the
            prefix cache; None if the engine does not report it.
        prompt_logprobs: on the first delta, one for each prompt token but the first, if
            `Sampling.prompt_logprobs` is set.
    """

    token_ids: Sequence[int]
    finish: Finish | None = None
    logprobs: Sequence[TokenLogprob] = ()
    cached_tokens: int | None = None
    prompt_logprobs: Sequence[TokenLogprob] | None = None


class Detokenizer(Protocol):
    """An incremental detokenizer for the tokens of one channel."""

    def push(self, token_ids: Sequence[int]) -> str:
        """Add tokens and return the text that they complete.

        Never returns part of a character.
        """

    def close(self) -> str:
        """Return the rest of the text; no token follows."""


class Codec(Protocol):
    """The chat template and tokenizer of a model."""

    async def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        thinking: bool,
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> Prompt:
        """Apply the chat template and tokenize the result.

        Args:
            messages: OpenAI chat messages as plain data; the arguments of tool calls are
                objects, not strings.
            thinking: False disables thinking in the template, if the template has a switch
                for that.
            tools: OpenAI tools as plain data.
            add_generation_prompt: whether to end with the beginning of an assistant message.
            continue_final_message: whether to leave the last message, an assistant's, open
                instead: the prompt ends in its content or, if it has none, in its thinking.

        Raises:
            ValueError: if the template rejects the messages; the message says why.
        """

    async def renders_tools(self) -> bool:
        """Return whether the chat template renders the tools of a request."""

    @property
    def vocabulary_size(self) -> int:
        """The size of the vocabulary; valid token ids are below it."""

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Return the token ids of a text.

        Args:
            text: special tokens spelled in it are encoded as such.
            add_special_tokens: whether to add the tokens that begin or end a sequence.
        """

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, special tokens included."""

    def convert_ids_to_tokens(self, token_ids: Sequence[int]) -> list[str]:
        """Return each token as it is spelled in the vocabulary."""

    def info(self) -> Mapping[str, Any]:
        """Return the settings of `tokenizer_config.json` as plain data."""

    def detokenizer(self, after: Sequence[int], *, special: bool = False) -> Detokenizer:
        """Return a detokenizer for tokens that follow `after`.

        Args:
            after: the preceding tokens, whose text has been emitted already.
            special: whether to include the text of special tokens.
        """

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of one token, which may be part of a character."""


class Engine(Protocol):
    """An inference engine that generates tokens and enforces thinking budgets."""

    @property
    def model(self) -> ModelInfo:
        """The served model."""

    @property
    def codec(self) -> Codec:
        """The model's chat template and tokenizer."""

    @property
    def tools(self) -> ToolFormat | None:
        """The model's tool call format, or None if no parser is configured."""

    async def check(self, job: Job) -> None:
        """Return if the job can be generated as it is.

        The check may take long, for instance to compile a grammar. Cancelling it stops that
        work.

        Checks that must wait are scheduled round-robin among the owners of jobs.

        Raises:
            UnsupportedRequest: if it cannot be generated.
            BudgetError: if its budget cannot be enforced.
        """

    def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """Generate one choice and yield its tokens as they come.

        Closing the generator aborts the job at once.

        Raises:
            EngineUnavailable: if the engine cannot continue.
        """

    async def move_maximum(
        self, job: Job, target: int | None, reason: EndReason | None = None
    ) -> Move | None:
        """Move the maximum of a job's thinking while it runs.

        Args:
            job: a job with `Job.moved_for`.
            target: the new maximum; None ends the thinking early, at the end of the sentence if
                its budget lands. See `BudgetStateMachine.move_maximum`.
            reason: the end reason if the new maximum is reached.

        Returns:
            The move as it took effect; None if there was none, as the job's thinking is being
            closed or the job has ended.

        Raises:
            EngineUnavailable: if the engine cannot tell.
        """

    async def record(self, job: Job) -> EngineRecord:
        """Return what was recorded of a job beside its tokens.

        Positions count the job's generated tokens from 0 and may lie beyond the tokens that
        were received. Call this once per job, after its generator has ended or was closed.

        Raises:
            EngineUnavailable: if the engine cannot report them.
        """

    async def health(self) -> None:
        """Return if the engine can serve requests.

        Raises:
            EngineUnavailable: if it cannot.
        """

    async def warm_up(self) -> None:
        """Trigger everything that is slow on first use, so that no client waits for it.

        Raises:
            EngineUnavailable: if the engine does not survive it.
        """

    async def heartbeat(self, timeouts: StallTimeouts) -> None:
        """Return once the engine has responded, or if no check is due yet.

        Called repeatedly. An engine that is slow but still makes progress is waited for.

        Args:
            timeouts: how long the engine may take to respond.

        Raises:
            EngineUnavailable: if the engine is dead or hangs.
        """

    async def kill(self) -> None:
        """Kill an engine that is dead or hangs: fail its jobs and end its processes."""

    async def aclose(self) -> None:
        """Shut the engine down and release its resources."""
