"""The reference implementation of budgets: a state machine over one choice's tokens.

Before each token it defines what the engine must enforce; after each token, what the
token was. Tests hold the vectorized table equal to it, and the gateway folds it over
the streamed tokens for its accounting. The state is a function of the tokens and of the
engine's record: the positions of tokens that replaced an attempt to close the thinking, as
the tokens alone do not distinguish a forced "Wait" from a sampled one, and the moves of the
maximum.
`proctor.budget.phases` lists the phases and the transitions between them.
"""

from collections import deque
from collections.abc import Iterable, Sequence, Set
from enum import IntEnum
from typing import NamedTuple

from proctor.budget.budgets import OnLoop, TokenBudget
from proctor.budget.loops import LoopDetector
from proctor.budget.markers import Markers
from proctor.budget.matcher import Crossing, Step, matcher_of
from proctor.budget.moves import EARLY_EXITS, Move, moved_maximum
from proctor.budget.outcome import EndReason, Forced, ForcedRun, Outcome
from proctor.budget.phases import TRANSITIONS, Event, Phase
from proctor.budget.vocabulary import (
    ENDS,
    ENDS_AFTER_NO_DIGIT,
    IS_DIGIT,
    MAX_CONTINUATION_BYTES,
    UNKNOWN_VOCABULARY,
    Vocabulary,
)


class Label(IntEnum):
    """Whether a token belongs to the thinking, to the answer, or to neither."""

    THINKING = 0
    ANSWER = 1
    MARKER = 2


class Labelled(NamedTuple):
    """A labelled token, or text beside a marker within one token.

    Attributes:
        token: the token's id; None for such text.
        label: its label.
        text: the bytes, if there is no token.
    """

    token: int | None
    label: Label
    text: bytes = b""


class DesyncError(RuntimeError):
    """A token differs from the forced one: the engine did not enforce the budget."""


class BudgetStateMachine:
    """The state of one choice's thinking under a budget.

    Before each token, `forced`, `suppresses_close`, `barred`, `bars_eos` and
    `max_incomplete_bytes` constrain it; `advance` then takes the token.

    Attributes:
        vocabulary: the texts of the tokens.
        matcher: the matcher of the model's markers.
        detector: the loop detector.
        phase: the current phase.
        maximum: the maximum of thinking tokens, which may have moved; None if there is none.
        matcher_state: the current state of `matcher`.
        length: tokens generated.
        tokens: thinking tokens, markers excluded.
        answer_tokens: answer tokens.
        spilled: answer tokens before a stray end marker, after thinking that was cut short.
        continuations: attempts to close that became continuations.
        incomplete_bytes: bytes missing from the last character, 0 to 3.
        partial: the index in `PARTIAL` of the end of the text.
        after_digit: whether the text ends in a digit.
        ends_sentence: whether the last token ended a sentence or line.
        event: the last event.
        forced_runs: the forced tokens, in order.
        loop_counts: the number of loops detected, by action.
    """

    def __init__(
        self, budget: TokenBudget, markers: Markers, vocabulary: Vocabulary = UNKNOWN_VOCABULARY
    ) -> None:
        self._budget = budget
        self._markers = markers
        self._detects_loops = budget.on_loop is not OnLoop.OFF
        self.vocabulary = vocabulary
        self.matcher = matcher_of(markers, vocabulary)
        self.detector = LoopDetector(vocabulary.weights)
        self.phase = Phase.THINKING if budget.opened else Phase.OUTSIDE
        self.maximum = budget.maximum
        self.matcher_state = self._root(inside=budget.opened)
        self.length = 0
        self.tokens = 0
        self.answer_tokens = 0
        self.spilled = 0
        self.continuations = 0
        self.incomplete_bytes = 0
        self.partial = 0
        self.after_digit = False
        self.ends_sentence = False
        self.event: Event | None = None
        self.forced_runs: list[ForcedRun] = []
        self.loop_counts = {OnLoop.NUDGE: 0, OnLoop.CLOSE: 0}
        self._pending_tokens: list[int] = []
        # A prefix of a marker at the end of a token whose rest belongs to another marker.
        self._pending_text = b""
        self._script: list[tuple[int, Forced]] = []
        self._starts_run = False
        self._end_reason: EndReason | None = None
        # The reason of an early exit that was ordered.
        self._exit: EndReason | None = None
        # The number of answer tokens at the last end marker.
        self._answer_start = 0
        if budget.begins_with_marker:
            self.matcher_state = self.matcher.outside
            self.phase = Phase.OPENING
            self._script = [(token, Forced.MARKER) for token in markers.start]
        self._enforce_limits(looping=False)

    @property
    def pending(self) -> int:
        """The number of last tokens that may turn out to be part of a marker."""
        return len(self._pending_tokens)

    @property
    def thinking(self) -> bool:
        """Whether a thinking block is open."""
        return self.phase in (Phase.THINKING, Phase.CONTINUING, Phase.CLOSING)

    @property
    def closing(self) -> bool:
        """Whether the end marker is being forced, with or without a wrap-up."""
        return self.phase is Phase.CLOSING

    def last_widths(self, count: int) -> list[int]:
        """Return the numbers of symbols of the pending tokens, newest first, padded with ones."""
        widths = [self.matcher.width(token) for token in reversed(self._pending_tokens)]
        return [*widths, *[1] * count][:count]

    @property
    def completes_marker(self) -> bool:
        """Whether the forced tokens are the rest of a partial end marker."""
        rest = self.matcher.completion(self.matcher_state)
        return bool(self._pending_tokens) and tuple(token for token, _ in self._script) == rest

    @property
    def forced(self) -> int | None:
        """The token that must come next, if any."""
        return self._script[0][0] if self._script else None

    @property
    def looped(self) -> bool:
        """Whether a loop was detected, after which there is no nudge."""
        return any(self.loop_counts.values())

    @property
    def loop_closed(self) -> bool:
        """Whether a loop was closed, after which attempts to close are no longer replaced."""
        return self.loop_counts[OnLoop.CLOSE] > 0

    @property
    def exiting(self) -> bool:
        """Whether the maximum was moved for an early exit."""
        return self._exit is not None

    @property
    def max_continuations(self) -> int:
        """How many attempts to close become continuations whatever the number of tokens."""
        return 0 if self.exiting else self._budget.continuations

    @property
    def script_length(self) -> int:
        """The number of tokens still to be forced."""
        return len(self._script)

    @property
    def closing_tokens(self) -> Set[int]:
        """The tokens that would close the thinking: the end marker's last ones and end of turn."""
        if not self.thinking:
            return frozenset()
        return self._markers.eos | self.matcher.closing_tokens(self.matcher_state)

    @property
    def end_token(self) -> int:
        """The end marker's next token, which replaces an end of turn inside the thinking."""
        return self.matcher.completion(self.matcher_state)[0]

    @property
    def suppresses_close(self) -> bool:
        """Whether an attempt to close the thinking now becomes a continuation."""
        if self.phase is not Phase.THINKING or self.loop_closed:
            return False
        return self.tokens < self._budget.minimum or self._continuation_is_due

    @property
    def continuation(self) -> tuple[int, ...]:
        """The tokens that replace the next attempt to close."""
        texts = self._budget.continuation_ids
        return texts[self.continuations % len(texts)]

    @property
    def barred(self) -> Set[int]:
        """The tokens to mask because they would open a block although the maximum is reached."""
        if self.phase is not Phase.OUTSIDE or self.maximum is None:
            return frozenset()
        spent = self.tokens >= self.maximum
        return self.matcher.barred(self.matcher_state) if spent else frozenset()

    @property
    def bars_eos(self) -> bool:
        """Whether to mask end-of-turn tokens because the answer is below its minimum."""
        if self.phase is not Phase.OUTSIDE:
            return False
        return self.answer_tokens + self.pending < self._budget.answer_minimum

    @property
    def max_incomplete_bytes(self) -> int:
        """The maximum of bytes missing from the last character after the next token.

        A character must be complete at the cap.
        """
        if self.phase is not Phase.THINKING:
            return MAX_CONTINUATION_BYTES
        room = self._room
        return MAX_CONTINUATION_BYTES if room is None else min(MAX_CONTINUATION_BYTES, room - 1)

    @property
    def _room(self) -> int | None:
        """The thinking tokens left before closing must begin; None without a maximum.

        The wrap-up's tokens are subtracted, unless a partial marker is where the
        wrap-up would have to begin.
        """
        if self.maximum is None:
            return None
        left = self.maximum - self.tokens - self.pending
        before_wrap_up = left - len(self._budget.wrap_up_ids)
        if before_wrap_up > 0 or (before_wrap_up == 0 and not self.pending):
            return before_wrap_up
        return left

    @property
    def _continuation_is_due(self) -> bool:
        if self.continuations >= self.max_continuations:
            return False
        return self._fits(self.continuation)

    def _fits(self, text: tuple[int, ...]) -> bool:
        """Return whether a text leaves at least one token of thinking before the wrap-up."""
        needed = len(text) + len(self._budget.wrap_up_ids)
        return self.maximum is None or self.tokens + self.pending + needed < self.maximum

    def advance(self, token: int, attempted: bool = False) -> list[Labelled]:
        """Take the next token, and return the tokens whose labels are now certain, in order.

        A token that may be part of a marker stays pending until that is decided.

        Args:
            token: the token's id.
            attempted: whether it replaces an attempt to close.

        Raises:
            DesyncError: if another token was forced.
        """
        if not attempted and (label := self.advance_plain(token)) is not None:
            return [Labelled(token, label)]
        stripped = self.release_partial_marker() if attempted else []
        self._follow_script(token, attempted)
        self.length += 1
        if token in self._markers.eos:
            return [*self.flush(), Labelled(token, Label.MARKER)]
        step = self.matcher.step(self.matcher_state, token)
        self.matcher_state = step.state
        self._pending_tokens.append(token)
        looping = self._follow_text(token)
        overlap = self._overlap(step.span)
        released = self._release(len(self._pending_tokens) - overlap, self._label)
        if step.crossing:
            released += self._cross_marker(step)
        elif self.phase is Phase.CONTINUING and self._is_continuation_complete:
            self._script = []
            self._transition(Event.RESUME)
        self._enforce_limits(looping)
        return stripped + released

    def advance_plain(self, token: int) -> Label | None:
        """Take the next token if it is plain text, as almost all are, and return its label.

        Such a token is not forced, neither begins nor continues a marker, and follows none that is
        incomplete: nothing is held back, and its label is certain at once. This does what
        `advance` does with it, at a fraction of the cost.

        Returns:
            None if `advance` has to take the token.
        """
        phase = self.phase
        if (
            (phase is not Phase.THINKING and phase is not Phase.OUTSIDE)
            or self._script
            or self._pending_tokens
            or self._pending_text
            or token in self._markers.eos
            or not self.matcher.is_plain(self.matcher_state, token)
        ):
            return None
        self.length += 1
        looping = self._follow_text(token)
        if phase is Phase.OUTSIDE:
            self.answer_tokens += 1
            return Label.ANSWER
        self.tokens += 1
        self._enforce_limits(looping)
        return Label.THINKING

    def move_maximum(self, target: int | None, reason: EndReason | None = None) -> Move | None:
        """Move the maximum, and close the thinking if that reaches it.

        Args:
            target: the new maximum, which moves no further than `moved_maximum` allows; None to
                exit early: at the end of the sentence if there is room for a landing.
            reason: the end reason if the new maximum is reached, one of `EARLY_EXITS`. Attempts
                to close then only become continuations below the minimum.

        Returns:
            The move as it took effect; None if the maximum stays, or it is too late because the
            thinking is being closed.

        Raises:
            ValueError: if `reason` is not one of `EARLY_EXITS`.
        """
        if reason is not None and reason not in EARLY_EXITS:
            raise ValueError(f"reason must be one of {', '.join(sorted(EARLY_EXITS))}")
        if self.closing:
            return None
        maximum = moved_maximum(
            self._budget,
            self.maximum,
            target,
            used=self.tokens + (self.pending if self.thinking else 0),
            incomplete_bytes=self.incomplete_bytes,
            thinking=self.thinking,
            exiting=self.exiting,
        )
        if maximum is None:
            return None
        move = Move(self.length, maximum, reason)
        self.apply_move(move)
        return move

    def apply_move(self, move: Move) -> None:
        """Apply a recorded move of the maximum."""
        self.maximum = move.maximum
        self._exit = move.reason or self._exit
        if self.phase is Phase.CONTINUING and self._is_continuation_complete:
            self._script = []
            self._transition(Event.RESUME)
        if self._room == 0 and self.phase in (Phase.THINKING, Phase.CONTINUING):
            self._close(Event.SPENT)

    def extends_marker(self, token: int) -> bool:
        """Return whether a token extends the partial match of a marker."""
        return (
            self.matcher.step(self.matcher_state, token).span
            > self.matcher.depth[self.matcher_state]
        )

    def release_partial_marker(self) -> list[Labelled]:
        """Release a partial end marker, labelled as a marker.

        The loop of s1 (arXiv 2501.19393) strips it too: it is not part of the thinking.
        """
        span, self.matcher_state = (
            self.matcher.depth[self.matcher_state],
            self.matcher.root(self.matcher_state),
        )
        return self._release_marker(span)

    def flush(self) -> list[Labelled]:
        """Release all pending tokens, because no token follows."""
        if self.closing and all(kind is Forced.MARKER for _, kind in self._script):
            return self.release_partial_marker()
        self.matcher_state = self.matcher.root(self.matcher_state)
        return [*self._release_text(), *self._release(len(self._pending_tokens), self._label)]

    def outcome(self, unfinished: EndReason) -> Outcome:
        """Return the statistics so far; `unfinished` is the end reason of unclosed thinking."""
        return Outcome(
            self.tokens,
            tuple(self.forced_runs),
            self.continuations,
            unfinished if self.thinking or self.phase is Phase.OPENING else self._reason_closed,
            dict(self.loop_counts),
            self.spilled,
        )

    @property
    def _reason_closed(self) -> EndReason:
        """Why the last block was closed, or why the thinking is below its minimum."""
        if self.loop_closed and self.tokens < self._budget.minimum:
            return EndReason.LOOP
        return self._end_reason or EndReason.DISABLED

    def _transition(self, event: Event) -> None:
        self.phase = TRANSITIONS[self.phase, event]
        self.event = event

    def _follow_script(self, token: int, attempted: bool) -> None:
        if attempted:
            if not self.suppresses_close or token != self.continuation[0]:
                raise DesyncError(f"token {token} cannot replace an attempt to close here")
            self._script = [(part, Forced.CONTINUATION) for part in self.continuation]
            self._starts_run = True
            self.continuations += 1
            self._transition(Event.ATTEMPT)
        if self._script:
            expected, kind = self._script.pop(0)
            if token != expected:
                raise DesyncError(f"token {token} was generated where {expected} was forced")
            self._record_forced(kind)

    def _record_forced(self, kind: Forced) -> None:
        position, runs = self.length, self.forced_runs
        last = runs[-1] if runs else None
        if last is None or self._starts_run or last.kind is not kind or last.end != position:
            runs.append(ForcedRun(kind, position, position + 1))
        else:
            runs[-1] = last._replace(end=position + 1)
        self._starts_run = False

    @property
    def _label(self) -> Label:
        """The label of a token here that is not part of a marker."""
        return Label.THINKING if self.thinking else Label.ANSWER

    def _root(self, *, inside: bool) -> int:
        """Return the matcher's state with nothing matched."""
        if inside:
            return self.matcher.inside
        return self.matcher.inert if self._budget.bound else self.matcher.outside

    def _overlap(self, span: int) -> int:
        """Return how many of the pending tokens the last `span` symbols cover."""
        count = 0
        while span > 0 and count < len(self._pending_tokens):
            count += 1
            span -= self.matcher.width(self._pending_tokens[-count])
        return count

    def _release(self, count: int, label: Label) -> list[Labelled]:
        released = [Labelled(token, label) for token in self._pending_tokens[:count]]
        del self._pending_tokens[:count]
        if label is Label.THINKING:
            self.tokens += count
        elif label is Label.ANSWER:
            self.answer_tokens += count
        return [*self._release_text(), *released] if count else []

    def _release_text(self) -> list[Labelled]:
        text, self._pending_text = self._pending_text, b""
        return [Labelled(None, self._label, text)] if text else []

    def _release_marker(self, span: int) -> list[Labelled]:
        """Release all pending tokens as a marker of `span` symbols, and any text before it."""
        before = sum(map(self.matcher.width, self._pending_tokens)) - span
        if before < 0:
            self._pending_text = self._pending_text[:before]
        elif self._pending_tokens:
            self._pending_text += bytes(self.vocabulary.symbols(self._pending_tokens[0])[:before])
        text = self._release_text()
        return text + self._release(len(self._pending_tokens), Label.MARKER)

    def _follow_text(self, token: int) -> bool:
        """Update the text's properties; return whether the thinking ends in a loop."""
        self.incomplete_bytes = self.vocabulary.incomplete_bytes_after(self.incomplete_bytes, token)
        traits = self.vocabulary.traits_of(token, self.partial)
        self.partial = self.vocabulary.partial_after(self.partial, token)
        ends = ENDS if self.after_digit else ENDS | ENDS_AFTER_NO_DIGIT
        self.ends_sentence = bool(traits & ends)
        self.after_digit = bool(traits & IS_DIGIT)
        return self._detects_loops and self.thinking and self.detector.advance(token)

    @property
    def _is_continuation_complete(self) -> bool:
        """Whether the continuation has ended, or its next character exceeds the maximum."""
        room = self._room
        if not self._script or room is None or self.incomplete_bytes:
            return not self._script
        return self.vocabulary.span([token for token, _ in self._script]) > room

    def _cross_marker(self, step: Step) -> list[Labelled]:
        last = self.vocabulary.symbols(self._pending_tokens[-1])
        released = self._release_marker(step.span)
        if step.crossing is Crossing.STRAY:
            self._count_spilled()
        else:
            if self.thinking:
                self._end_reason = self._reason_to_close()
                self._answer_start = self.answer_tokens
            self._transition(Event.CLOSED if self.thinking else Event.OPENED)
            self._script = []
        if step.crossing is Crossing.CLOSED and self._budget.bound:
            self.matcher_state = self.matcher.inert
        # The rest of the token may be a prefix of another marker.
        self._pending_text = bytes(last[len(last) - step.rest :])
        certain = step.rest - self.matcher.depth[step.state]
        if certain > 0:
            released.append(Labelled(None, self._label, self._pending_text[:certain]))
            self._pending_text = self._pending_text[certain:]
        return released

    def _count_spilled(self) -> None:
        """Count the answer up to a stray end marker, if thinking was cut short or not allowed."""
        reason = EndReason.DISABLED if self._budget.maximum == 0 else self._end_reason
        if reason not in (None, EndReason.NATURAL):
            self.spilled += self.answer_tokens - self._answer_start
        self._answer_start = self.answer_tokens

    def _reason_to_close(self) -> EndReason:
        if self._budget.maximum == 0:
            return EndReason.DISABLED
        if not self.closing:
            return EndReason.NATURAL
        if self.event is Event.LOOP:
            return EndReason.LOOP
        if self._exit is not None:
            return self._exit
        return EndReason.LENGTH if self._budget.capped_by_room else EndReason.MAX

    def _enforce_limits(self, looping: bool) -> None:
        """Start closing at the maximum or shortly before it, or because of a loop."""
        if self.phase is not Phase.THINKING and self.phase is not Phase.CONTINUING:
            return
        room = self._room
        if room == 0:
            self._close(Event.SPENT)
        elif self.phase is Phase.THINKING and room is not None and self._may_land(room):
            self._close(Event.LAND)
        elif self.phase is Phase.THINKING and looping:
            self._handle_loop()

    def _may_land(self, room: int) -> bool:
        is_near = room <= self._budget.landing
        at_boundary = self.ends_sentence and not self.pending
        return is_near and at_boundary and self.tokens >= self._budget.minimum

    def _handle_loop(self) -> None:
        nudge = self._budget.nudge_ids
        if nudge and not self.looped and not self.pending and self._fits(nudge):
            self.loop_counts[OnLoop.NUDGE] += 1
            self._script = [(token, Forced.CONTINUATION) for token in nudge]
            self._starts_run = True
            self._transition(Event.NUDGE)
            self.detector.reset()
        else:
            self.loop_counts[OnLoop.CLOSE] += 1
            self._close(Event.LOOP)

    def _close(self, event: Event) -> None:
        """Force the wrap-up, if it fits, and the end marker."""
        self._transition(event)
        wrap_up = self._budget.wrap_up_ids if not self.pending else ()
        if self.maximum is not None and self.tokens + len(wrap_up) > self.maximum:
            wrap_up = ()
        # The tokens of a partial marker that is completed do not count as thinking, so below
        # the minimum the whole marker is forced instead.
        completes = self.pending and self.tokens >= self._budget.minimum
        end = self.matcher.completion(self.matcher_state) if completes else self._markers.end
        self._script = [(token, Forced.WRAP_UP) for token in wrap_up]
        self._script += [(token, Forced.MARKER) for token in end]


def replay(
    budget: TokenBudget,
    markers: Markers,
    tokens: Iterable[int],
    attempts: Set[int] = frozenset(),
    vocabulary: Vocabulary = UNKNOWN_VOCABULARY,
    moves: Sequence[Move] = (),
) -> BudgetStateMachine:
    """Create a machine and advance it by `tokens`, with what an engine recorded of them.

    Args:
        budget: the budget of the choice.
        markers: the model's thinking markers.
        tokens: its tokens.
        attempts: the positions of those that replaced an attempt to close.
        vocabulary: the texts of the tokens.
        moves: the moves of the maximum, in order; those after the last token are ignored.

    Raises:
        DesyncError: if a token differs from the forced one.
    """
    machine = BudgetStateMachine(budget, markers, vocabulary)
    remaining = deque(moves)
    for position, token in enumerate(tokens):
        while remaining and remaining[0].position <= position:
            machine.apply_move(remaining.popleft())
        machine.advance(token, position in attempts)
    for move in remaining:
        if move.position <= machine.length:
            machine.apply_move(move)
    return machine
