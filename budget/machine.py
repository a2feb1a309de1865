"""The reference: one choice's thinking as a state machine over its tokens.

It says what the engine must do before each token and what each token was. The
vectorised table is held equal to it, and the gateway folds it over the streamed
tokens for its accounting. State is a function of the tokens and of the record
of attempts: which tokens stand where the model tried to close its thinking.
The tokens alone cannot tell a forced "Wait" from one that the model wrote.
The phases and the ways between them stand in `proctor.budget.phases`.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple

from proctor.budget.budgets import OnLoop, TokenBudget
from proctor.budget.loops import LoopDetector
from proctor.budget.markers import Markers
from proctor.budget.matcher import Crossing, Step, matcher_of
from proctor.budget.phases import TRANSITIONS, Event, Phase
from proctor.budget.vocabulary import (
    ENDS,
    ENDS_AFTER_NO_DIGIT,
    IS_DIGIT,
    LONGEST_TAIL,
    UNKNOWN_VOCABULARY,
    Vocabulary,
)


class Label(IntEnum):
    """What a token is: part of the thinking, of the answer, or of neither."""

    THINKING = 0
    ANSWER = 1
    MARKER = 2


class Labelled(NamedTuple):
    """A token and what it is, or text of a marker's token that is no part of the marker.

    Attributes:
        token: the token's id; None where it is such text.
        label: what it is.
        text: the bytes, where there is no token.
    """

    token: int | None
    label: Label
    text: bytes = b""


class Forced(StrEnum):
    """Why a token was forced."""

    CONTINUATION = "continuation"
    WRAP_UP = "wrap_up"
    MARKER = "marker"


class EndReason(StrEnum):
    """Why thinking ended."""

    NATURAL = "natural"
    MAX = "max"
    LOOP = "loop"
    LENGTH = "length"
    STOP = "stop"
    CANCELLED = "cancelled"
    DISABLED = "disabled"


class ForcedRun(NamedTuple):
    """Tokens in a row that were forced for one reason.

    What stands in the place of an attempt to close begins a run of its own, as does a nudge.

    Attributes:
        kind: the reason.
        start: position of the first among all tokens of the choice.
        end: the position after the last.
    """

    kind: Forced
    start: int
    end: int


class DesyncError(RuntimeError):
    """A token differs from the one that the budget forces: it was not enforced."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one choice's thinking.

    Attributes:
        tokens: thinking tokens, markers excluded.
        forced_runs: the tokens that the server chose, in order.
        continuations: attempts to close that were turned into continuations.
        end_reason: why the thinking ended.
        loops: loops that were found, by what was done about them.
    """

    tokens: int
    forced_runs: tuple[ForcedRun, ...]
    continuations: int
    end_reason: EndReason
    loops: dict[OnLoop, int]

    @property
    def forced(self) -> dict[Forced, int]:
        """How many tokens the server chose, by kind."""
        counts = dict.fromkeys(Forced, 0)
        for run in self.forced_runs:
            counts[run.kind] += run.end - run.start
        return counts


class BudgetStateMachine:
    """Folds one choice's tokens under one budget.

    Before each token, `forced`, `suppresses_close`, `barred`, `bars_end` and
    `most_incomplete_bytes` say what must hold for it; `advance` then takes the token.
    """

    def __init__(
        self, budget: TokenBudget, markers: Markers, vocabulary: Vocabulary = UNKNOWN_VOCABULARY
    ) -> None:
        self._budget = budget
        self._markers = markers
        self.vocabulary = vocabulary
        self.matcher = matcher_of(markers, vocabulary)
        self.detector = LoopDetector(vocabulary.weights)
        self.phase = Phase.THINKING if budget.opened else Phase.OUTSIDE
        self.matched = self._root(inside=budget.opened)
        self.length = 0
        self.tokens = 0
        self.answered = 0
        self.continuations = 0
        self.incomplete_bytes = 0
        self.partial = 0
        self.after_digit = False
        self.ends_sentence = False
        self.event: Event | None = None
        self.forced_runs: list[ForcedRun] = []
        self.loop_counts = {OnLoop.NUDGE: 0, OnLoop.CLOSE: 0}
        self._held: list[int] = []
        self._begun = b""  # by a token that is a marker's for the rest: held like a token
        self._script: list[tuple[int, Forced]] = []
        self._begins_run = False
        self._end_reason: EndReason | None = None
        if budget.begins_with_marker:
            self.matched = self.matcher.outside
            self.phase = Phase.OPENING
            self._script = [(token, Forced.MARKER) for token in markers.start]
        self._limit(looping=False)

    @property
    def pending(self) -> int:
        """The last tokens that may turn out to be part of a marker."""
        return len(self._held)

    @property
    def thinking(self) -> bool:
        """Whether a thinking block is open."""
        return self.phase in (Phase.THINKING, Phase.CONTINUING, Phase.CLOSING)

    @property
    def closing(self) -> bool:
        """Whether the end marker, after a wrap-up or not, is being forced."""
        return self.phase is Phase.CLOSING

    def last_widths(self, count: int) -> list[int]:
        """Symbols of the last tokens held, newest first; padded by ones, that count for nothing."""
        widths = [self.matcher.width(token) for token in reversed(self._held)]
        return [*widths, *[1] * count][:count]

    @property
    def completes_marker(self) -> bool:
        """Whether what is being forced is the rest of an end marker that has begun."""
        rest = self.matcher.completion(self.matched)
        return bool(self._held) and tuple(token for token, _ in self._script) == rest

    @property
    def forced(self) -> int | None:
        """The token that must come next, if there is one."""
        return self._script[0][0] if self._script else None

    @property
    def looped(self) -> bool:
        """Whether a loop was found, after which there is no nudge."""
        return any(self.loop_counts.values())

    @property
    def loop_closed(self) -> bool:
        """Whether a loop was closed, after which no attempt to close is turned down."""
        return self.loop_counts[OnLoop.CLOSE] > 0

    @property
    def script_length(self) -> int:
        """How many tokens from here on are already determined."""
        return len(self._script)

    @property
    def closing_tokens(self) -> Set[int]:
        """Tokens that would close the thinking here: the end marker's last, and ends of turn."""
        if not self.thinking:
            return frozenset()
        return self._markers.eos | self.matcher.closing_tokens(self.matched)

    @property
    def end_token(self) -> int:
        """The end marker's next token: what an end of turn inside the thinking becomes."""
        return self.matcher.completion(self.matched)[0]

    @property
    def suppresses_close(self) -> bool:
        """Whether an attempt to close the thinking here becomes a continuation."""
        if self.phase is not Phase.THINKING or self.loop_closed:
            return False
        return self.tokens < self._budget.minimum or self._continuation_is_due

    @property
    def continuation(self) -> tuple[int, ...]:
        """The tokens that the next attempt is replaced by."""
        texts = self._budget.continuation_ids
        return texts[self.continuations % len(texts)]

    @property
    def barred(self) -> Set[int]:
        """Tokens that must not come next: they would open thinking with nothing left to think."""
        if self.phase is not Phase.OUTSIDE or self._budget.maximum is None:
            return frozenset()
        spent = self.tokens >= self._budget.maximum
        return self.matcher.barred(self.matched) if spent else frozenset()

    @property
    def bars_end(self) -> bool:
        """Whether no end of turn may come next: the answer is not as long as it must be."""
        if self.phase is not Phase.OUTSIDE:
            return False
        return self.answered + self.pending < self._budget.answer_minimum

    @property
    def most_incomplete_bytes(self) -> int:
        """Most bytes that a character may still lack after the next token, to end by the cap."""
        if self.phase is not Phase.THINKING:
            return LONGEST_TAIL
        room = self._room
        return LONGEST_TAIL if room is None else min(LONGEST_TAIL, room - 1)

    @property
    def _room(self) -> int | None:
        """Tokens that may still be thought before the thinking must begin to close.

        The wrap-up is left room for, unless a half-matched marker stands where
        it would have to begin.
        """
        maximum = self._budget.maximum
        if maximum is None:
            return None
        left = maximum - self.tokens - self.pending
        before = left - len(self._budget.wrap_up_ids)
        return before if before > 0 or (before == 0 and not self.pending) else left

    @property
    def _continuation_is_due(self) -> bool:
        if self.continuations >= self._budget.continuations:
            return False
        return self._fits(self.continuation)

    def _fits(self, text: tuple[int, ...]) -> bool:
        """Whether a text leaves at least one token to think before the wrap-up."""
        maximum = self._budget.maximum
        needed = len(text) + len(self._budget.wrap_up_ids)
        return maximum is None or self.tokens + self.pending + needed < maximum

    def advance(self, token: int, attempted: bool = False) -> list[Labelled]:
        """Take the next token; give what is certain now, in order.

        A token that may be part of a longer marker is held back until it is
        known to be.

        Args:
            token: the token's id.
            attempted: whether it stands in the place of an attempt to close.

        Raises:
            DesyncError: if another token was forced here.
        """
        turned_down = self.turn_down() if attempted else []
        self._follow_script(token, attempted)
        self.length += 1
        if token in self._markers.eos:
            return [*self.flush(), Labelled(token, Label.MARKER)]
        step = self.matcher.step(self.matched, token)
        self.matched = step.state
        self._held.append(token)
        looping = self._read(token)
        overlap = self._overlap(step.span)
        released = self._release(len(self._held) - overlap, self._label)
        if step.crossing:
            released += self._cross_marker(step)
        elif self.phase is Phase.CONTINUING and self._has_said_enough:
            self._script = []
            self._go(Event.RESUME)
        self._limit(looping)
        return turned_down + released

    def goes_on_with(self, token: int) -> bool:
        """Whether a token matches more of the marker that has begun."""
        return self.matcher.step(self.matched, token).span > self.matcher.depth[self.matched]

    def turn_down(self) -> list[Labelled]:
        """Give the beginning of an end marker as the marker that it would have become.

        That is what s1's loop strips: it is not of the thinking.
        """
        span, self.matched = self.matcher.depth[self.matched], self.matcher.root(self.matched)
        return self._release_marker(span)

    def flush(self) -> list[Labelled]:
        """Release what is held back, because no token follows."""
        if self.closing and all(kind is Forced.MARKER for _, kind in self._script):
            return self.turn_down()
        self.matched = self.matcher.root(self.matched)
        return [*self._release_begun(), *self._release(len(self._held), self._label)]

    def outcome(self, unfinished: EndReason) -> Outcome:
        """The account of the thinking so far; `unfinished` is the reason if it is not closed."""
        return Outcome(
            self.tokens,
            tuple(self.forced_runs),
            self.continuations,
            unfinished if self.thinking or self.phase is Phase.OPENING else self._reason_closed,
            dict(self.loop_counts),
        )

    @property
    def _reason_closed(self) -> EndReason:
        """Why the last block was closed, or what kept all of them from the minimum."""
        if self.loop_closed and self.tokens < self._budget.minimum:
            return EndReason.LOOP
        return self._end_reason or EndReason.DISABLED

    def _go(self, event: Event) -> None:
        self.phase = TRANSITIONS[self.phase, event]
        self.event = event

    def _follow_script(self, token: int, attempted: bool) -> None:
        if attempted:
            if not self.suppresses_close or token != self.continuation[0]:
                raise DesyncError(f"token {token} cannot stand for an attempt to close")
            self._script = [(part, Forced.CONTINUATION) for part in self.continuation]
            self._begins_run = True
            self.continuations += 1
            self._go(Event.ATTEMPT)
        if self._script:
            expected, kind = self._script.pop(0)
            if token != expected:
                raise DesyncError(f"token {token} came where {expected} was forced")
            self._note_forced(kind)

    def _note_forced(self, kind: Forced) -> None:
        position, runs = self.length, self.forced_runs
        last = runs[-1] if runs else None
        if last is None or self._begins_run or last.kind is not kind or last.end != position:
            runs.append(ForcedRun(kind, position, position + 1))
        else:
            runs[-1] = last._replace(end=position + 1)
        self._begins_run = False

    @property
    def _label(self) -> Label:
        """What a token here is, unless it is part of a marker."""
        return Label.THINKING if self.thinking else Label.ANSWER

    def _root(self, *, inside: bool) -> int:
        """The state in which nothing of a marker is matched."""
        if inside:
            return self.matcher.inside
        return self.matcher.inert if self._budget.bound else self.matcher.outside

    def _overlap(self, span: int) -> int:
        """How many of the tokens held the last `span` symbols take."""
        count = 0
        while span > 0 and count < len(self._held):
            count += 1
            span -= self.matcher.width(self._held[-count])
        return count

    def _release(self, count: int, label: Label) -> list[Labelled]:
        released = [Labelled(token, label) for token in self._held[:count]]
        del self._held[:count]
        if label is Label.THINKING:
            self.tokens += count
        elif label is Label.ANSWER:
            self.answered += count
        return [*self._release_begun(), *released] if count else []

    def _release_begun(self) -> list[Labelled]:
        text, self._begun = self._begun, b""
        return [Labelled(None, self._label, text)] if text else []

    def _release_marker(self, span: int) -> list[Labelled]:
        """Release what is held, which the last `span` symbols end with a marker's beginning."""
        before = sum(map(self.matcher.width, self._held)) - span
        if before < 0:
            self._begun = self._begun[:before]
        elif self._held:
            self._begun += bytes(self.vocabulary.symbols(self._held[0])[:before])
        lead = self._release_begun()
        return lead + self._release(len(self._held), Label.MARKER)

    def _read(self, token: int) -> bool:
        """Follow the text; whether what has been thought ends in a loop."""
        self.incomplete_bytes = self.vocabulary.incomplete_bytes_after(self.incomplete_bytes, token)
        traits = self.vocabulary.traits_of(token, self.partial)
        self.partial = self.vocabulary.partial_after(self.partial, token)
        ends = ENDS if self.after_digit else ENDS | ENDS_AFTER_NO_DIGIT
        self.ends_sentence = bool(traits & ends)
        self.after_digit = bool(traits & IS_DIGIT)
        watched = self.thinking and self._budget.on_loop is not OnLoop.OFF
        return watched and self.detector.advance(token)

    @property
    def _has_said_enough(self) -> bool:
        """Whether the continuation is at its end, or its next character would not fit."""
        room = self._room
        if not self._script or room is None or self.incomplete_bytes:
            return not self._script
        return self.vocabulary.span([token for token, _ in self._script]) > room

    def _cross_marker(self, step: Step) -> list[Labelled]:
        last = self.vocabulary.symbols(self._held[-1])
        crossed = self._release_marker(step.span)
        if step.crossing is not Crossing.STRAY:
            if self.thinking:
                self._end_reason = self._reason_to_close()
            self._go(Event.CLOSED if self.thinking else Event.OPENED)
            self._script = []
        if step.crossing is Crossing.CLOSED and self._budget.bound:
            self.matched = self.matcher.inert
        # What comes after the marker in its token may begin another one.
        self._begun = bytes(last[len(last) - step.rest :])
        certain = step.rest - self.matcher.depth[step.state]
        if certain > 0:
            crossed.append(Labelled(None, self._label, self._begun[:certain]))
            self._begun = self._begun[certain:]
        return crossed

    def _reason_to_close(self) -> EndReason:
        if self._budget.maximum == 0:
            return EndReason.DISABLED
        if not self.closing:
            return EndReason.NATURAL
        if self.event is Event.LOOP:
            return EndReason.LOOP
        return EndReason.LENGTH if self._budget.capped_by_room else EndReason.MAX

    def _limit(self, looping: bool) -> None:
        """Begin to close at the maximum or shortly before it, or to leave a loop."""
        if self.phase in (Phase.THINKING, Phase.CONTINUING) and self._room == 0:
            self._close(Event.SPENT)
        elif self.phase is Phase.THINKING and self._may_land:
            self._close(Event.LAND)
        elif self.phase is Phase.THINKING and looping:
            self._leave_loop()

    @property
    def _may_land(self) -> bool:
        room = self._room
        near = room is not None and room <= self._budget.landing
        whole = self.ends_sentence and not self.pending
        return near and whole and self.tokens >= self._budget.minimum

    def _leave_loop(self) -> None:
        nudge = self._budget.nudge_ids
        if nudge and not self.looped and not self.pending and self._fits(nudge):
            self.loop_counts[OnLoop.NUDGE] += 1
            self._script = [(token, Forced.CONTINUATION) for token in nudge]
            self._begins_run = True
            self._go(Event.NUDGE)
            self.detector.reset()
        else:
            self.loop_counts[OnLoop.CLOSE] += 1
            self._close(Event.LOOP)

    def _close(self, event: Event) -> None:
        """Force the wrap-up, where it fits, and the end marker."""
        self._go(event)
        wrap_up = self._budget.wrap_up_ids if not self.pending else ()
        if self._budget.maximum is not None and self.tokens + len(wrap_up) > self._budget.maximum:
            wrap_up = ()
        # A half-matched marker that is completed counts for nothing: not under the minimum.
        completes = self.pending and self.tokens >= self._budget.minimum
        end = self.matcher.completion(self.matched) if completes else self._markers.end
        self._script = [(token, Forced.WRAP_UP) for token in wrap_up]
        self._script += [(token, Forced.MARKER) for token in end]


def replay(
    budget: TokenBudget,
    markers: Markers,
    tokens: Iterable[int],
    attempts: Set[int] = frozenset(),
    vocabulary: Vocabulary = UNKNOWN_VOCABULARY,
) -> BudgetStateMachine:
    """A machine that has taken `tokens`; `attempts` are the positions of replaced attempts."""
    machine = BudgetStateMachine(budget, markers, vocabulary)
    for position, token in enumerate(tokens):
        machine.advance(token, position in attempts)
    return machine
