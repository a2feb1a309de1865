"""The seam to the engine: token ids in, token ids out.

Everything above it (budget, channels, accounting) is the same whichever engine
runs below.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from proctor.budget import UNKNOWN_VOCABULARY, Markers, TokenBudget, Vocabulary
from proctor.server.engines.processes.stall import Patience
from proctor.server.engines.tool_calls import Constraint, ToolFormat


class Finish(StrEnum):
    """Why generation ended."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The served model, as far as the gateway needs to know it.

    Attributes:
        name: the name that clients use.
        context_length: most tokens of prompt and completion together.
        markers: what opens and closes its thinking.
        created: unix time at which it was loaded, in seconds.
        vocabulary: what its tokens' text tells a budget.
    """

    name: str
    context_length: int
    markers: Markers
    created: int
    vocabulary: Vocabulary = UNKNOWN_VOCABULARY


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered conversation.

    Attributes:
        ids: its token ids.
        opened: whether it ends inside a thinking block.
        may_think: whether it was to turn thinking off, and the template has no
            switch for that.
    """

    ids: tuple[int, ...]
    opened: bool
    may_think: bool = False


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample one choice; None is the model's own default.

    Attributes:
        max_tokens: most tokens to generate: thinking, markers and answer; 0 only
            reads the prompt, for its scores.
        temperature: 0 is greedy.
        top_p: the nucleus to sample from.
        top_k: how many of the likeliest tokens to sample from; -1 is all.
        min_p: the least probability to sample, as a share of the likeliest token's.
        presence_penalty: taken off the logits of tokens that were generated.
        frequency_penalty: the same, for each time that they were.
        repetition_penalty: what logits of tokens seen, the prompt's too, are divided by.
        logit_bias: added to the logits of tokens, by id.
        seed: a number that makes the choice reproducible, or None.
        top_logprobs: how many of the likeliest tokens to tell at each position
            beside the score of the one chosen; None tells no scores.
        prompt_logprobs: the same at each position of the prompt but its first.
        constraint: what the answer is bound to.
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
        id: unique among the jobs of this engine's lifetime.
    """

    id: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    budget: TokenBudget


class TokenLogprob(NamedTuple):
    """How likely the model found a token, before temperature, masks and penalties.

    Attributes:
        token: its id.
        logprob: the natural logarithm of its probability.
        top: the likeliest ids with theirs, the likeliest first.
        rank: how many tokens are at least as likely, itself included; 0 where the
            engine does not say.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """What was generated since the last delta.

    Attributes:
        token_ids: at least one token, but in a last delta maybe none. An end
            of turn is among them.
        finish: set on the last delta alone.
        scores: one for each token, where they were asked for.
        cached: tokens of the prompt that the engine had in its cache, on the
            first delta; None where it does not say.
        prompt_scores: of the prompt's tokens but the first, on the first delta,
            where they were asked for.
    """

    token_ids: Sequence[int]
    finish: Finish | None = None
    scores: Sequence[TokenLogprob] = ()
    cached: int | None = None
    prompt_scores: Sequence[TokenLogprob] | None = None


class Detokenizer(Protocol):
    """Turns the tokens of one channel into text, a few at a time."""

    def push(self, token_ids: Sequence[int]) -> str:
        """Text that is certain after these tokens: never part of a character."""

    def close(self) -> str:
        """Text that was held back, because no token follows."""


class Codec(Protocol):
    """The model's way between conversations, text and token ids."""

    async def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        thinking: bool,
        tools: Sequence[Mapping[str, Any]] = (),
        answering: bool = True,
        continuing: bool = False,
    ) -> Prompt:
        """Apply the chat template.

        Args:
            messages: OpenAI chat messages, as plain data; the arguments of tool
                calls as objects.
            thinking: False asks the template to switch thinking off, where it
                has such a switch.
            tools: OpenAI's tools, as plain data.
            answering: whether to end with the beginning of an answer.
            continuing: whether to end inside the last message instead, an
                assistant's: in its content, or where it has none in its thinking.

        Raises:
            ValueError: if the template refuses the messages; the text says why.
        """

    async def renders_tools(self) -> bool:
        """Whether the chat template tells the model of tools."""

    @property
    def vocabulary_size(self) -> int:
        """Every token id that the model knows is below this."""

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Token ids of a text.

        Args:
            text: may hold special tokens, as they are spelled.
            add_special_tokens: whether to add those that begin or end a text.
        """

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, special ones included."""

    def names(self, token_ids: Sequence[int]) -> list[str]:
        """Each token as the vocabulary spells it."""

    def info(self) -> Mapping[str, Any]:
        """What the tokenizer is set to, as in its `tokenizer_config.json`: plain data."""

    def detokenizer(self, after: Sequence[int], *, special: bool = False) -> Detokenizer:
        """A detokenizer for tokens that follow the tokens `after`.

        Args:
            after: tokens that have been told already.
            special: whether special tokens have a text too.
        """

    def token_bytes(self, token: int) -> bytes:
        """The text of one token, which may be part of a character."""


class Engine(Protocol):
    """Something that generates tokens under a budget and enforces it."""

    @property
    def model(self) -> ModelInfo:
        """The model served."""

    @property
    def codec(self) -> Codec:
        """Its tokenizer and template."""

    @property
    def tools(self) -> ToolFormat | None:
        """How it writes tool calls, or None if nobody said."""

    async def check(self, job: Job, owner: str) -> None:
        """Return if the job can be generated as it is. To stop waiting stops the work.

        Args:
            job: what to generate.
            owner: whose it is; where there is much to look through, owners take turns.

        Raises:
            UnsupportedRequest: if it cannot.
            BudgetError: if its budget cannot be enforced.
        """

    def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """Generate one choice. Closing the generator aborts the job at once.

        Raises:
            EngineUnavailable: if the engine cannot go on.
        """

    async def attempts(self, job: Job) -> frozenset[int]:
        """Positions among a job's tokens where a continuation replaced an attempt to close.

        To be asked once, after the job's generator has ended or was closed.
        There may be positions beyond the tokens that were received.

        Raises:
            EngineUnavailable: if the engine cannot say.
        """

    async def health(self) -> None:
        """Return if the engine can answer.

        Raises:
            EngineUnavailable: if it cannot.
        """

    async def warm_up(self) -> None:
        """Do once what is slow the first time, so that no client waits for it.

        Raises:
            EngineUnavailable: if the engine does not survive it.
        """

    async def heartbeat(self, patience: Patience) -> None:
        """Return once the engine has answered, or needs not be asked yet.

        An engine that is slow but works is waited for; the caller asks again and again.

        Args:
            patience: how long it may owe the answer.

        Raises:
            EngineUnavailable: if it is dead or hangs.
        """

    async def kill(self) -> None:
        """Put an end to an engine that is dead or hangs: its jobs fail, its processes go."""

    async def aclose(self) -> None:
        """Stop the engine and give back what it holds."""
