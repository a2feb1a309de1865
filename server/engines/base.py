"""The seam to the engine: token ids in, token ids out.

Everything above it (budget, channels, accounting) is the same whichever engine
runs below.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from budget import OPAQUE, Markers, TokenBudget, Vocabulary


class EngineUnavailable(RuntimeError):
    """The engine is loading, has failed, or has died; the message says which."""


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
    vocabulary: Vocabulary = OPAQUE


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered conversation.

    Attributes:
        ids: its token ids.
        opened: whether it ends inside a thinking block.
    """

    ids: tuple[int, ...]
    opened: bool


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample one choice.

    Attributes:
        max_tokens: most tokens to generate: thinking, markers and answer.
        temperature: None is the model's own default, as is top_p's.
        top_p: the nucleus to sample from.
        seed: a number that makes the choice reproducible, or None.
    """

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None


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


@dataclass(frozen=True, slots=True)
class Delta:
    """What was generated since the last delta.

    Attributes:
        token_ids: at least one token, but in a last delta maybe none. An end
            of turn is among them.
        finish: set on the last delta alone.
    """

    token_ids: Sequence[int]
    finish: Finish | None = None


class Detokenizer(Protocol):
    """Turns the tokens of one channel into text, a few at a time."""

    def push(self, token_ids: Sequence[int]) -> str:
        """Text that is certain after these tokens: never part of a character."""

    def close(self) -> str:
        """Text that was held back, because no token follows."""


class Codec(Protocol):
    """The model's way between conversations, text and token ids."""

    async def render(self, messages: Sequence[Mapping[str, Any]], *, thinking: bool) -> Prompt:
        """Apply the chat template.

        Args:
            messages: OpenAI chat messages, as plain data.
            thinking: False asks the template to switch thinking off, where it
                has such a switch.

        Raises:
            ValueError: if the template refuses the messages; the text says why.
        """

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, no special tokens added."""

    def detokenizer(self, after: Sequence[int]) -> Detokenizer:
        """A detokenizer for tokens that follow the tokens `after`."""


class Engine(Protocol):
    """Something that generates tokens under a budget and enforces it."""

    @property
    def model(self) -> ModelInfo:
        """The model served."""

    @property
    def codec(self) -> Codec:
        """Its tokenizer and template."""

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

    async def aclose(self) -> None:
        """Stop the engine and give back what it holds."""
