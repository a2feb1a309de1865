"""Thinking budgets: as requested, with texts, and as enforced, with token ids."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from proctor.budget.errors import BudgetError
from proctor.budget.markers import Markers
from proctor.budget.matcher import MarkerMatcher, matcher_of
from proctor.budget.vocabulary import UNKNOWN_VOCABULARY, Vocabulary

MAX_CONTINUATIONS = 8
"""Maximum of `continuations`: accuracy in s1 (arXiv 2501.19393) levels off after about six and
then falls."""

MAX_TEXTS = 16
MAX_TEXT_TOKENS = 64
"""Maximum number of continuation texts, and of tokens in a text."""

NUDGE_TEXT = "\nWait, let me try a different approach.\n"
"""Injected at the first loop if `on_loop` is `nudge`."""

LANDING_DIVISOR = 8
MAX_LANDING = 64
"""Thinking may close at the end of a sentence in the last eighth before its maximum, but at most
in the last 64 tokens."""


class OnLoop(StrEnum):
    """The action when thinking repeats itself."""

    CLOSE = "close"
    NUDGE = "nudge"
    OFF = "off"


class Landing(StrEnum):
    """Where thinking that approaches its maximum is closed."""

    SENTENCE = "sentence"
    HARD = "hard"


Encode = Callable[[str], Sequence[int]]
"""Converts text to token ids, without adding special tokens."""


@dataclass(frozen=True, slots=True)
class ThinkingBudget:
    """The bounds on a model's thinking, as requested.

    Attributes:
        min_tokens: minimum of thinking tokens; an earlier attempt to close the
            thinking becomes a continuation.
        max_tokens: maximum of thinking tokens, wrap-up included; None means that
            only the context limits it.
        continuations: the number of attempts to close that become continuations
            regardless of the token count (s1's `thinking_n_ignore`).
        continuation_texts: texts injected in place of an attempt, in rotation.
        wrap_up_text: text injected before a forced end, within `max_tokens`.
        on_loop: close thinking that repeats itself, nudge it once first, or do
            nothing. After a loop is closed there are no continuations.
        landing: close at the first end of a sentence or line shortly before
            `max_tokens`, or exactly at `max_tokens`.
        opens: force a thinking block open if the prompt does not open one.

    Raises:
        BudgetError: if a number is out of range, the minimum exceeds the
            maximum, or a continuation text is empty.
    """

    min_tokens: int = 0
    max_tokens: int | None = None
    continuations: int = 0
    continuation_texts: tuple[str, ...] = ("Wait",)
    wrap_up_text: str = ""
    on_loop: OnLoop = OnLoop.CLOSE
    landing: Landing = Landing.SENTENCE
    opens: bool = False

    def __post_init__(self) -> None:
        if self.min_tokens < 0:
            raise BudgetError("min_thinking_tokens", "min_thinking_tokens must be 0 or more")
        if self.max_tokens is not None:
            if self.max_tokens < 0:
                raise BudgetError(
                    "max_thinking_tokens",
                    "max_thinking_tokens must be 0 or more, or -1 for no cap",
                )
            if self.min_tokens > self.max_tokens:
                raise BudgetError(
                    "min_thinking_tokens",
                    f"min_thinking_tokens ({self.min_tokens}) must not exceed "
                    f"max_thinking_tokens ({self.max_tokens})",
                )
        if not 0 <= self.continuations <= MAX_CONTINUATIONS:
            raise BudgetError(
                "thinking.continuations",
                f"thinking.continuations must be between 0 and {MAX_CONTINUATIONS}",
            )
        if self.continuations and self.max_tokens == 0:
            raise BudgetError(
                "thinking.continuations",
                "thinking.continuations must be 0 because max_thinking_tokens is 0",
            )
        if not self.continuation_texts or not all(self.continuation_texts):
            raise BudgetError(
                "thinking.continuation_text", "thinking.continuation_text must not be empty"
            )
        if len(self.continuation_texts) > MAX_TEXTS:
            raise BudgetError(
                "thinking.continuation_text",
                f"thinking.continuation_text must have at most {MAX_TEXTS} texts",
            )

    @property
    def disabled(self) -> bool:
        """Whether thinking is disabled."""
        return self.max_tokens == 0


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """The budget of one choice in token ids, as the engine enforces it.

    Attributes:
        minimum: minimum of thinking tokens.
        maximum: maximum of thinking tokens; None means no cap.
        continuations: the number of attempts to close that become continuations
            regardless of the token count.
        continuation_ids: the continuations, in rotation; none may be empty.
        wrap_up_ids: forced before a forced end; shorter than `maximum`, or empty.
        opened: whether the prompt ends inside a thinking block.
        capped_by_room: whether `maximum` follows from the context length or
            `max_tokens` rather than from a requested number.
        landing: the number of tokens before the wrap-up in which thinking closes
            at the first end of a sentence or line; 0 disables it.
        on_loop: the action when a loop is detected.
        nudge_ids: forced at the first loop; nonempty only if `on_loop` is `nudge`.
        opens: whether the start marker is forced if the prompt opens no block.
        bound: whether a grammar constrains the answer, where markers are then ignored.
        answer_minimum: minimum of answer tokens; end-of-turn tokens are masked before.
    """

    minimum: int = 0
    maximum: int | None = None
    continuations: int = 0
    continuation_ids: tuple[tuple[int, ...], ...] = ()
    wrap_up_ids: tuple[int, ...] = ()
    opened: bool = True
    capped_by_room: bool = False
    landing: int = 0
    on_loop: OnLoop = OnLoop.OFF
    nudge_ids: tuple[int, ...] = ()
    opens: bool = False
    bound: bool = False
    answer_minimum: int = 0

    def __post_init__(self) -> None:
        numbers = self.minimum, self.continuations, self.landing, self.answer_minimum
        if any(number < 0 for number in numbers):
            raise BudgetError("thinking", "the numbers of a budget must be 0 or more")
        if self.maximum is not None and not self.minimum <= self.maximum:
            raise BudgetError("min_thinking_tokens", "the minimum must not exceed the maximum")
        if self.demands_thinking and not self.continuation_ids:
            raise BudgetError(
                "thinking.continuation_text",
                "a minimum or continuations require at least one continuation text",
            )
        if not all(self.continuation_ids):
            raise BudgetError(
                "thinking.continuation_text", "a continuation must have at least one token"
            )
        if self.wrap_up_ids and (self.maximum is None or len(self.wrap_up_ids) >= self.maximum):
            raise BudgetError(
                "thinking.wrap_up_text", "the wrap-up must have fewer tokens than the maximum"
            )
        if bool(self.nudge_ids) is not (self.on_loop is OnLoop.NUDGE):
            raise BudgetError(
                "thinking.on_loop", "nudge tokens must be present exactly if on_loop is nudge"
            )

    @property
    def demands_thinking(self) -> bool:
        """Whether attempts to close the thinking may have to be replaced by continuations."""
        return self.minimum > 0 or self.continuations > 0

    @property
    def begins_with_marker(self) -> bool:
        """Whether generation begins with a forced start marker."""
        return not self.opened and (self.opens or self.demands_thinking)

    def to_wire(self) -> dict[str, Any]:
        """Return the budget as JSON-compatible data for the engine's sampling parameters."""
        return {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "continuations": self.continuations,
            "continuation_ids": [list(ids) for ids in self.continuation_ids],
            "wrap_up_ids": list(self.wrap_up_ids),
            "opened": self.opened,
            "capped_by_room": self.capped_by_room,
            "landing": self.landing,
            "on_loop": self.on_loop.value,
            "nudge_ids": list(self.nudge_ids),
            "opens": self.opens,
            "bound": self.bound,
            "answer_minimum": self.answer_minimum,
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "TokenBudget":
        """Create a budget from the result of `to_wire`.

        Raises:
            BudgetError: if the mapping is malformed.
        """
        try:
            fields = dict(wire)
            fields["continuation_ids"] = tuple(map(tuple, fields["continuation_ids"]))
            fields["wrap_up_ids"] = tuple(fields["wrap_up_ids"])
            fields["nudge_ids"] = tuple(fields["nudge_ids"])
            fields["on_loop"] = OnLoop(fields["on_loop"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise BudgetError("thinking", f"malformed token budget: {error}") from error


def answer_reserve(
    max_tokens: int, share: float = 0.25, at_least: int = 16, at_most: int = 512
) -> int:
    """Return how many of `max_tokens` are reserved for the answer."""
    return min(max_tokens, max(at_least, min(at_most, int(max_tokens * share))))


def thinking_room(max_tokens: int, reserve: int, markers: Markers, opened: bool) -> int:
    """Return how many of `max_tokens` are left to think after answer reserve and markers."""
    marker_tokens = len(markers.end) + (0 if opened else len(markers.start))
    return max(0, max_tokens - reserve - marker_tokens)


def tokenize(
    budget: ThinkingBudget,
    *,
    encode: Encode,
    markers: Markers,
    opened: bool,
    room: int,
    vocabulary: Vocabulary = UNKNOWN_VOCABULARY,
    may_think: bool = False,
) -> TokenBudget:
    """Convert a budget to token ids.

    A wrap-up that leaves no token of thinking is dropped.

    Args:
        budget: the budget as requested.
        encode: the tokenizer.
        markers: the model's thinking markers.
        opened: whether the prompt ends inside a thinking block.
        room: thinking tokens available; clamps the maximum.
        vocabulary: the texts of the tokens.
        may_think: whether the model may think although thinking is disabled,
            because the prompt does not prevent it. If a marker has several
            symbols, a block is then opened and closed at once: masking the
            marker would leave near misses that the model can think after.

    Raises:
        BudgetError: if the minimum exceeds `room`, or a text has no tokens or
            too many, or contains a thinking marker.
    """
    if budget.min_tokens > room:
        raise BudgetError(
            "min_thinking_tokens",
            f"min_thinking_tokens ({budget.min_tokens}) must not exceed the {room} thinking tokens "
            "that max_tokens and the context leave after the answer reserve",
        )
    maximum = room if budget.max_tokens is None else min(budget.max_tokens, room)
    matcher = matcher_of(markers, vocabulary)
    texts = tuple(
        _encode_text("thinking.continuation_text", text, encode, matcher)
        for text in budget.continuation_texts
    )
    wrap_up: tuple[int, ...] = ()
    if budget.wrap_up_text:
        wrap_up = _encode_text("thinking.wrap_up_text", budget.wrap_up_text, encode, matcher)
    return TokenBudget(
        minimum=budget.min_tokens,
        maximum=maximum,
        continuations=budget.continuations if maximum else 0,
        continuation_ids=texts,
        wrap_up_ids=wrap_up if len(wrap_up) < maximum else (),
        opened=opened,
        capped_by_room=budget.max_tokens is None,
        landing=landing_stretch(maximum) if budget.landing is Landing.SENTENCE else 0,
        on_loop=budget.on_loop,
        nudge_ids=tuple(encode(NUDGE_TEXT)) if budget.on_loop is OnLoop.NUDGE else (),
        opens=budget.opens or (may_think and not maximum and matcher.has_multi_symbol_marker),
    )


def landing_stretch(maximum: int) -> int:
    """Return how many tokens before a maximum thinking may close at the end of a sentence."""
    return min(MAX_LANDING, maximum // LANDING_DIVISOR)


def _encode_text(param: str, text: str, encode: Encode, matcher: MarkerMatcher) -> tuple[int, ...]:
    ids = tuple(encode(text))
    if not 0 < len(ids) <= MAX_TEXT_TOKENS:
        raise BudgetError(param, f"{param} must be between 1 and {MAX_TEXT_TOKENS} tokens long")
    if matcher.markers.eos & {*ids} or matcher.completes_marker(ids):
        raise BudgetError(
            param,
            f"{param} must not contain a thinking marker or an end-of-turn token, nor start with "
            "text that could complete the end marker",
        )
    return ids
