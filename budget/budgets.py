"""What a thinking budget is: as asked, in text, and as enforced, in token ids."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from proctor.budget.errors import BudgetError
from proctor.budget.markers import Markers
from proctor.budget.matcher import MarkerMatcher, matcher_of
from proctor.budget.vocabulary import UNKNOWN_VOCABULARY, Vocabulary

MAX_CONTINUATIONS = 8
"""s1's accuracy flattens after about six continuations and then falls."""

MAX_TEXTS = 16
MAX_TEXT_TOKENS = 64

NUDGE_TEXT = "\nWait, let me try a different approach.\n"
"""Injected once into a thinking that goes round in circles."""

LANDING_SHARE = 8
MAX_LANDING = 64
"""A thinking may close at a sentence's end in the last eighth before its maximum, at most in the
last 64 tokens."""


class OnLoop(StrEnum):
    """What to do about a thinking that repeats itself."""

    CLOSE = "close"
    NUDGE = "nudge"
    OFF = "off"


class Landing(StrEnum):
    """Where a thinking that runs into its maximum is closed."""

    SENTENCE = "sentence"
    HARD = "hard"


Encode = Callable[[str], Sequence[int]]
"""Text to token ids, without special tokens added."""


@dataclass(frozen=True, slots=True)
class ThinkingBudget:
    """How long a model may and must think, as a person asks for it.

    Attributes:
        min_tokens: fewest thinking tokens; a sooner attempt to close the
            thinking becomes a continuation.
        max_tokens: most thinking tokens, wrap-up included; None is no cap but
            the context.
        continuations: how many attempts to close are turned into continuations
            whatever the count of tokens (s1's `thinking_n_ignore`).
        continuation_texts: texts injected at an attempt, in rotation.
        wrap_up_text: text injected before a forced end, inside `max_tokens`.
        on_loop: close a thinking that repeats itself, nudge it once first, or
            let it be. Once a loop was closed there are no continuations.
        landing: close at the first end of a sentence or a line in the last
            stretch before `max_tokens`, or hard at `max_tokens`.
        opens: open a block by force where the prompt does not open one.

    Raises:
        BudgetError: if a number is out of range, the minimum is over the
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
                    f"min_thinking_tokens ({self.min_tokens}) is over "
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
                "thinking.continuations needs thinking: max_thinking_tokens is 0",
            )
        if not self.continuation_texts or not all(self.continuation_texts):
            raise BudgetError(
                "thinking.continuation_text", "thinking.continuation_text must not be empty"
            )
        if len(self.continuation_texts) > MAX_TEXTS:
            raise BudgetError(
                "thinking.continuation_text",
                f"thinking.continuation_text takes at most {MAX_TEXTS} texts",
            )

    @property
    def disabled(self) -> bool:
        """Whether there is to be no thinking at all."""
        return self.max_tokens == 0


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """A budget for one choice, in token ids: what the engine enforces.

    Attributes:
        minimum: fewest thinking tokens.
        maximum: most thinking tokens, or None for no cap.
        continuations: attempts to close that are turned into continuations
            whatever the count of tokens.
        continuation_ids: the continuations, in rotation; none of them empty.
        wrap_up_ids: forced before a forced end; empty, or shorter than `maximum`.
        opened: whether the prompt ends inside a thinking block.
        capped_by_room: whether `maximum` is what the context or `max_tokens`
            left, rather than a number that someone asked for.
        landing: tokens before the wrap-up from which on the thinking closes at
            the first end of a sentence or a line; 0 is never.
        on_loop: what to do about a loop.
        nudge_ids: forced when a loop is first found; empty unless it is nudged.
        opens: whether the start marker is forced where the prompt opens no block.
        bound: whether a grammar binds the answer, in which no marker counts then.
        answer_minimum: fewest answer tokens; until then no end of turn is sampled.
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
            raise BudgetError("thinking", "a budget has no negative numbers")
        if self.maximum is not None and not self.minimum <= self.maximum:
            raise BudgetError("min_thinking_tokens", "the minimum is over the maximum")
        if self.demands_thinking and not self.continuation_ids:
            raise BudgetError("thinking.continuation_text", "a minimum needs a continuation")
        if not all(self.continuation_ids):
            raise BudgetError("thinking.continuation_text", "a continuation has no tokens")
        if self.wrap_up_ids and (self.maximum is None or len(self.wrap_up_ids) >= self.maximum):
            raise BudgetError("thinking.wrap_up_text", "the wrap-up does not fit the maximum")
        if bool(self.nudge_ids) is not (self.on_loop is OnLoop.NUDGE):
            raise BudgetError("thinking.on_loop", "a nudge needs its tokens, and nothing else does")

    @property
    def demands_thinking(self) -> bool:
        """Whether some attempt to close the thinking may have to be turned down."""
        return self.minimum > 0 or self.continuations > 0

    @property
    def begins_with_marker(self) -> bool:
        """Whether the first tokens are the start marker, by force."""
        return not self.opened and (self.opens or self.demands_thinking)

    def to_wire(self) -> dict[str, Any]:
        """Plain JSON, to travel in the engine's sampling parameters."""
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
        """The inverse of `to_wire`.

        Raises:
            BudgetError: if the mapping is not one that `to_wire` gives.
        """
        try:
            fields = dict(wire)
            fields["continuation_ids"] = tuple(map(tuple, fields["continuation_ids"]))
            fields["wrap_up_ids"] = tuple(fields["wrap_up_ids"])
            fields["nudge_ids"] = tuple(fields["nudge_ids"])
            fields["on_loop"] = OnLoop(fields["on_loop"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise BudgetError("thinking", f"not a token budget: {error}") from error


def answer_reserve(
    max_tokens: int, share: float = 0.25, at_least: int = 16, at_most: int = 512
) -> int:
    """Tokens out of `max_tokens` that thinking may not use, so that an answer follows."""
    return min(max_tokens, max(at_least, min(at_most, int(max_tokens * share))))


def thinking_room(max_tokens: int, reserve: int, markers: Markers, opened: bool) -> int:
    """Thinking tokens that `max_tokens` leaves after the answer reserve and the markers."""
    marked = len(markers.end) + (0 if opened else len(markers.start))
    return max(0, max_tokens - reserve - marked)


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
    """The budget in token ids, its maximum clamped to `room` tokens.

    A wrap-up that does not leave a single token of thinking is left out. Where
    there is to be no thinking, and `may_think` says that nothing in the prompt
    keeps the model from it, a marker of several symbols opens a block that is
    closed at once: barring the marker itself would leave others like it.

    Raises:
        BudgetError: if the minimum does not fit in `room`, or a text has no
            tokens, too many, or holds a thinking marker.
    """
    if budget.min_tokens > room:
        raise BudgetError(
            "min_thinking_tokens",
            f"min_thinking_tokens ({budget.min_tokens}) is over the {room} thinking tokens that "
            "max_tokens and the context leave beside the answer reserve",
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
        opens=budget.opens or (may_think and not maximum and matcher.spelled),
    )


def landing_stretch(maximum: int) -> int:
    """Tokens before a maximum in which a thinking may close at a sentence's end."""
    return min(MAX_LANDING, maximum // LANDING_SHARE)


def _encode_text(param: str, text: str, encode: Encode, matcher: MarkerMatcher) -> tuple[int, ...]:
    ids = tuple(encode(text))
    if not 0 < len(ids) <= MAX_TEXT_TOKENS:
        raise BudgetError(param, f"{param} must be between 1 and {MAX_TEXT_TOKENS} tokens long")
    if matcher.markers.eos & {*ids} or matcher.completes_marker(ids):
        raise BudgetError(
            param,
            f"{param} must not hold a thinking marker or an end of turn, nor begin as the end "
            "marker ends",
        )
    return ids
