"""The budgets of a batch as arrays: `proctor.budget.machine.BudgetStateMachine`, vectorized.

Each slot holds one request. Every operation applies to all slots at once and reads
nothing back to the host, so a step costs about the same for one row as for hundreds.
`step` is a pure function, so that it can also be applied to draft tokens that may be
rejected later.
"""

import copy
from typing import NamedTuple

import numpy as np

from proctor.budget.budgets import MAX_TEXTS, OnLoop, TokenBudget
from proctor.budget.machine import BudgetStateMachine
from proctor.budget.markers import Markers
from proctor.budget.matcher import Crossing
from proctor.budget.moves import Move, moved_maximum
from proctor.budget.outcome import EndReason
from proctor.budget.processors.backend import Array, ArrayBackend
from proctor.budget.processors.constraints import TokenConstraints
from proctor.budget.processors.forced_sequences import IDLE, NO_TOKEN, ForcedSequences
from proctor.budget.processors.loops import LoopDetectors, LoopState
from proctor.budget.processors.marker_matcher import BatchMarkerMatcher, has_barred
from proctor.budget.processors.vocabulary_arrays import VocabularyArrays
from proctor.budget.vocabulary import MAX_CONTINUATION_BYTES, UNKNOWN_VOCABULARY, Vocabulary

UNLIMITED = 2**62
"""The maximum of a budget without one."""


class State(NamedTuple):
    """The state of each slot; the shape of each array is [slots] unless stated otherwise.

    Attributes:
        thinking: bool; whether the slot is inside a thinking block.
        tokens: int64; thinking tokens, markers excluded.
        matcher_state: int64; the state of the marker matcher.
        answer_tokens: int64; answer tokens, counted in slots whose answer has a minimum.
        pending: int64; the number of last tokens that may turn out to be part of a marker.
        widths: [slots, reach] int64; numbers of symbols of the last tokens, newest first.
        continuations: int64; attempts to close that became continuations.
        length: int64; tokens generated.
        cursor: int64; the cell of the next forced token in the slot's row of
            `ForcedSequences`; IDLE (0) if none is forced.
        looped: bool; whether a loop was detected.
        loop_closed: bool; whether a loop was closed.
        incomplete_bytes: int64; bytes missing from the last character, 0 to 3.
        partial: int64; see `Vocabulary.partial`.
        after_digit: bool; whether the text ends in a digit.
        loops: the state of each slot's loop detector.
    """

    thinking: Array
    tokens: Array
    matcher_state: Array
    answer_tokens: Array
    pending: Array
    widths: Array
    continuations: Array
    length: Array
    cursor: Array
    looped: Array
    loop_closed: Array
    incomplete_bytes: Array
    partial: Array
    after_digit: Array
    loops: LoopState

    @classmethod
    def empty(cls, slots: int, reach: int, arrays: ArrayBackend) -> "State":
        """Return the state of empty slots.

        Args:
            slots: the number of slots.
            reach: the maximum of symbols in a partial marker; see `BatchMarkerMatcher`.
            arrays: the backend.
        """

        def numbers() -> Array:
            return arrays.zeros((slots,))

        def flags() -> Array:
            return arrays.zeros((slots,), arrays.xp.bool)

        return cls(
            thinking=flags(),
            tokens=numbers(),
            matcher_state=numbers(),
            answer_tokens=numbers(),
            pending=numbers(),
            widths=arrays.zeros((slots, reach)),
            continuations=numbers(),
            length=numbers(),
            cursor=numbers(),
            looped=flags(),
            loop_closed=flags(),
            incomplete_bytes=numbers(),
            partial=numbers(),
            after_digit=flags(),
            loops=LoopState.empty(slots, arrays),
        )


class BudgetTable:
    """The budgets of up to `slots` requests, on the host or on a device.

    Attributes:
        state: the state of each slot.
    """

    def __init__(
        self,
        slots: int,
        markers: Markers,
        arrays: ArrayBackend,
        vocabulary: Vocabulary = UNKNOWN_VOCABULARY,
    ) -> None:
        self._arrays = arrays
        self._xp, self._take = arrays.xp, arrays.take
        self._vocabulary = VocabularyArrays(vocabulary, arrays)
        self._matcher = BatchMarkerMatcher(markers, vocabulary, arrays)
        self._detectors = LoopDetectors(arrays)
        self._layout = layout = ForcedSequences(markers, vocabulary)
        self._completion_start = arrays.as_int64(layout.completion_start)
        matcher = self._matcher.matcher
        ends = [
            matcher.completion(state)[0] if matcher.inside <= state < matcher.inert else NO_TOKEN
            for state in range(matcher.states)
        ]
        self._end = arrays.as_int64(ends)
        self._has_barred = arrays.to_device(has_barred(matcher))
        self._allocate(slots)

    def _allocate(self, slots: int) -> None:
        """Replace all per-slot arrays with those of empty slots."""
        arrays, layout = self._arrays, self._layout
        self.state = State.empty(slots, self._matcher.reach, arrays)

        # The numbers of the budgets, one column per slot, and views of their rows.
        self._numbers = arrays.zeros((10 + MAX_TEXTS, slots))
        self._minimum, self._maximum, self._continuations = self._numbers[:3]
        self._wrap_up_length, self._landing, self._loop_detection = self._numbers[3:6]
        self._nudge_length, self._continuation_count = self._numbers[6:8]
        self._answer_minimum, self._bound = self._numbers[8:10]
        self._continuation_lengths = self._numbers[10:]
        self._continuation_count += 1

        # [slots, width]: the tokens that can be forced, and, for each cell of a continuation,
        # how many tokens the character spans that starts there.
        self._sequences = arrays.zeros((slots, layout.width)) + NO_TOKEN
        self._character_spans = arrays.zeros((slots, layout.width))
        self._slots = arrays.as_int64(range(slots))
        self._row_starts = self._slots * layout.width

        # Copies on the host, [slots], to skip operations that no slot needs.
        self._demands_thinking = np.zeros(slots, dtype=bool)
        self._has_nudge = np.zeros(slots, dtype=bool)
        self._detects_loops = np.zeros(slots, dtype=bool)
        self._has_answer_minimum = np.zeros(slots, dtype=bool)
        self._near_maximum_from = np.full(slots, UNLIMITED)
        self._exiting = np.zeros(slots, dtype=bool)
        self._any_demands_thinking = self._any_nudge = self._any_loop_detection = (
            self._any_answer_minimum
        ) = False

    def load(self, slot: int, budget: TokenBudget, machine: BudgetStateMachine) -> None:
        """Load a request into a slot, replacing its contents.

        Args:
            slot: the index of the slot.
            budget: the request's budget.
            machine: the state after the request's tokens so far.
        """
        state = self.state
        state.thinking[slot] = machine.thinking
        state.tokens[slot] = machine.tokens
        state.matcher_state[slot] = machine.matcher_state
        state.answer_tokens[slot] = machine.answer_tokens
        state.pending[slot] = machine.pending
        state.widths[slot] = self._arrays.as_int64(machine.last_widths(self._matcher.reach))
        state.continuations[slot] = machine.continuations
        state.length[slot] = machine.length
        state.cursor[slot] = self._layout.cursor(budget, machine)
        state.looped[slot] = machine.looped
        state.loop_closed[slot] = machine.loop_closed
        state.incomplete_bytes[slot] = machine.incomplete_bytes
        state.partial[slot] = machine.partial
        state.after_digit[slot] = machine.after_digit
        state.loops.load(slot, machine.detector, self._arrays)
        self._demands_thinking[slot] = budget.demands_thinking
        self._has_nudge[slot] = bool(budget.nudge_ids)
        self._detects_loops[slot] = budget.on_loop is not OnLoop.OFF
        self._has_answer_minimum[slot] = budget.answer_minimum > 0
        maximum = UNLIMITED if machine.maximum is None else machine.maximum
        self._near_maximum_from[slot] = _near_maximum_from(budget, maximum)
        self._exiting[slot] = machine.exiting
        self._update_any()
        lengths = [len(text) for text in budget.continuation_ids]
        numbers = [
            budget.minimum,
            maximum,
            machine.max_continuations,
            len(budget.wrap_up_ids),
            budget.landing,
            budget.on_loop is not OnLoop.OFF,
            len(budget.nudge_ids),
            max(1, len(lengths)),
            budget.answer_minimum,
            budget.bound,
            *lengths,
            *[0] * (MAX_TEXTS - len(lengths)),
        ]
        self._numbers[:, slot] = self._arrays.as_int64(numbers)
        self._sequences[slot] = self._arrays.as_int64(self._layout.row(budget))
        if budget.demands_thinking or budget.nudge_ids:
            self._character_spans[slot] = self._arrays.as_int64(
                self._layout.character_spans(budget)
            )

    def move_maximum(
        self, slot: int, budget: TokenBudget, target: int | None, reason: EndReason | None
    ) -> Move | None:
        """Move the maximum of a slot; see `BudgetStateMachine.move_maximum`. Waits for the device.

        Args:
            slot: the index of the slot.
            budget: the budget that it was loaded with.
            target: the new maximum, or None for an early exit.
            reason: the end reason if it is reached.
        """
        state, maximum = self.state, int(self._maximum[slot])
        thinking = bool(state.thinking[slot])
        if int(state.cursor[slot]) >= self._layout.close_start:
            return None
        moved = moved_maximum(
            budget,
            None if maximum == UNLIMITED else maximum,
            target,
            used=int(state.tokens[slot]) + (int(state.pending[slot]) if thinking else 0),
            incomplete_bytes=int(state.incomplete_bytes[slot]),
            thinking=thinking,
            exiting=bool(self._exiting[slot]),
        )
        if moved is None:
            return None
        self._maximum[slot] = moved
        if reason is not None:
            self._continuations[slot] = 0
            self._exiting[slot] = True
        self._near_maximum_from[slot] = _near_maximum_from(budget, moved)
        none = self._xp.zeros_like(state.thinking)
        # Changes no other slot: they obey their limits already.
        self.state = self._enforce_limits(state, none, none, None)
        return Move(int(state.length[slot]), moved, reason)

    def unload(self, slot: int) -> None:
        """Empty a slot, so that no operations are run for its budget."""
        for flags in (
            self._demands_thinking,
            self._has_nudge,
            self._detects_loops,
            self._has_answer_minimum,
        ):
            flags[slot] = False
        self._near_maximum_from[slot] = UNLIMITED
        self._update_any()

    def resized(self, slots: int) -> "BudgetTable":
        """Return a table of another number of slots, with the same contents where possible."""
        other = copy.copy(self)
        other._allocate(slots)
        common = min(slots, len(self._slots))
        for source, target in zip(self._slot_arrays(), other._slot_arrays(), strict=True):
            target[:common] = source[:common]
        other._update_any()
        return other

    def _slot_arrays(self) -> list[Array]:
        """Return all per-slot arrays; the first axis of each is the slot."""
        state = [*self.state[:-1], *self.state.loops]
        host = [
            self._demands_thinking,
            self._has_nudge,
            self._detects_loops,
            self._has_answer_minimum,
            self._near_maximum_from,
            self._exiting,
        ]
        return [*state, self._numbers.T, self._sequences, self._character_spans, *host]

    def _update_any(self) -> None:
        self._any_demands_thinking = bool(self._demands_thinking.any())
        self._any_nudge = bool(self._has_nudge.any())
        self._any_loop_detection = bool(self._detects_loops.any())
        self._any_answer_minimum = bool(self._has_answer_minimum.any())

    def may_suppress_close(self, slots: np.ndarray) -> np.ndarray:
        """Return, for each of some `slots`, [n] int64, whether it may have attempts replaced.

        The result is [n] bool, on the host.
        """
        return self._demands_thinking[slots]

    def may_bar_eos(self, slots: np.ndarray) -> np.ndarray:
        """Return, for each of some `slots`, [n] int64, whether its answer has a minimum.

        The result is [n] bool, on the host.
        """
        return self._has_answer_minimum[slots]

    def may_split_character(self, slots: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return whether a character may be cut by the maximum.

        Args:
            slots: [n] int64, on the host.
            lengths: [n] int64, on the host; upper bounds on the tokens generated.

        Returns:
            [n] bool, on the host.
        """
        return lengths >= self._near_maximum_from[slots]

    def advance(self, token: Array, attempted: Array) -> None:
        """Replace the state by the one after one more token per slot; see `step`."""
        self.state = self.step(self.state, token, attempted)

    def step(self, state: State, token: Array, attempted: Array) -> State:
        """Return the state after one more token per slot.

        Args:
            state: the state before.
            token: [slots] int64; NO_TOKEN leaves a slot unchanged.
            attempted: [slots] bool; whether the token replaces an attempt to close.
        """
        has_token = token >= 0
        cursor, continuations = state.cursor, state.continuations
        matcher_state, pending = state.matcher_state, state.pending
        if self._any_demands_thinking:
            cursor = self._xp.where(attempted, self._continuation_cell(state), cursor)
            continuations = continuations + attempted
            # A partial marker before a replaced attempt counts neither as marker nor as thinking.
            matcher_state = self._xp.where(attempted, self._matcher.matcher.inside, matcher_state)
            pending = self._xp.where(attempted, 0, pending)
        cursor = cursor + (has_token & (cursor != IDLE))

        step = self._matcher.step(matcher_state, token)
        completes_marker = has_token & (step.crossing != Crossing.NONE)
        crossed = completes_marker & (step.crossing != Crossing.STRAY)
        overlap, widths = self._overlap(state.widths, token, step.span, pending, has_token)
        next_state = self._xp.where(
            crossed & (step.crossing == Crossing.CLOSED) & (self._bound > 0),
            self._matcher.matcher.inert,
            step.state,
        )
        is_thinking = has_token & state.thinking
        # How many tokens are no longer pending.
        certain = pending + 1 - overlap
        answer_tokens = state.answer_tokens
        if self._any_answer_minimum:
            answer_tokens = answer_tokens + self._xp.where(has_token & ~state.thinking, certain, 0)
        index = self._vocabulary.index(token)
        traits = self._vocabulary.traits(
            index, state.incomplete_bytes, state.partial, state.after_digit
        )
        loops, looping = state.loops, None
        if self._any_loop_detection:
            weights = self._vocabulary.weights(index)
            loops, looping = self._detectors.step(loops, token, weights, is_thinking)
        after = State(
            thinking=state.thinking ^ crossed,
            tokens=state.tokens + self._xp.where(is_thinking, certain, 0),
            matcher_state=self._xp.where(has_token, next_state, state.matcher_state),
            answer_tokens=answer_tokens,
            pending=self._xp.where(
                has_token, self._xp.where(completes_marker, 0, overlap), state.pending
            ),
            widths=widths,
            continuations=continuations,
            length=state.length + has_token,
            cursor=cursor,
            looped=state.looped,
            loop_closed=state.loop_closed,
            incomplete_bytes=self._xp.where(
                has_token, traits.incomplete_bytes, state.incomplete_bytes
            ),
            partial=self._xp.where(has_token, traits.partial, state.partial),
            after_digit=self._xp.where(has_token, traits.after_digit, state.after_digit),
            loops=loops,
        )
        return self._enforce_limits(after, crossed, has_token & traits.ends, looping)

    def _overlap(
        self, widths: Array, token: Array, span: Array, pending: Array, has_token: Array
    ) -> tuple[Array, Array]:
        """Count the pending tokens, the newest included, that the last `span` symbols cover.

        Args:
            widths: [slots, reach] int64; `State.widths` before the token.
            token: [slots] int64.
            span: [slots] int64.
            pending: [slots] int64; the number of pending tokens before the token.
            has_token: [slots] bool.

        Returns:
            The counts, [slots] int64, and `State.widths` after the token.
        """
        if not self._matcher.reach:
            return self._xp.astype(span > 0, self._xp.int64), widths
        newest = self._matcher.width(token)
        overlap = self._matcher.overlap(widths, newest, span)
        after = self._xp.concat((newest[:, None], widths[:, :-1]), axis=1)
        overlap = self._xp.where(overlap > pending + 1, pending + 1, overlap)
        return overlap, self._xp.where(has_token[:, None], after, widths)

    def constraints(self, state: State, slots: Array) -> TokenConstraints:
        """Return the constraints on the next token of some `slots`, [rows] int64."""
        suppresses_close = self._suppresses_close(state)
        columns = TokenConstraints(
            forced=self._cell(self._sequences, state.cursor),
            barred=self._barred(state),
            bars_eos=self._bars_end(state),
            may_close=self._is_sampling(state) & ~suppresses_close,
            suppresses_close=suppresses_close,
            continuation=self._cell(self._sequences, self._continuation_cell(state)),
            end=self._take(self._end, state.matcher_state),
            matcher_state=state.matcher_state,
            length=state.length,
            incomplete_bytes=state.incomplete_bytes,
            max_incomplete_bytes=self._max_incomplete_bytes(state),
        )
        return TokenConstraints(*(self._take(column, slots) for column in columns))

    def _is_sampling(self, state: State) -> Array:
        """Return, [slots] bool, whether the next token is a sampled thinking token."""
        return state.thinking & (state.cursor == IDLE)

    def _suppresses_close(self, state: State) -> Array:
        if not self._any_demands_thinking:
            return self._xp.zeros_like(state.thinking)
        fits = self._fits(state, self._continuation_length(state))
        due = (state.continuations < self._continuations) & fits
        return (
            self._is_sampling(state) & ~state.loop_closed & ((state.tokens < self._minimum) | due)
        )

    def _barred(self, state: State) -> Array:
        spent = (state.tokens >= self._maximum) & self._take(self._has_barred, state.matcher_state)
        applies = ~state.thinking & (state.cursor == IDLE) & spent
        return self._xp.where(applies, state.matcher_state, NO_TOKEN)

    def _bars_end(self, state: State) -> Array:
        if not self._any_answer_minimum:
            return self._xp.zeros_like(state.thinking)
        answering = ~state.thinking & (state.cursor == IDLE)
        return answering & (state.answer_tokens + state.pending < self._answer_minimum)

    def _max_incomplete_bytes(self, state: State) -> Array:
        limit = self._room(state) - 1
        is_limited = self._is_sampling(state) & (limit < MAX_CONTINUATION_BYTES)
        return self._xp.where(is_limited, limit, MAX_CONTINUATION_BYTES)

    def _enforce_limits(
        self,
        state: State,
        crossed: Array,
        ends_sentence: Array,
        looping: Array | None,
    ) -> State:
        """Start closing at the maximum or shortly before it, or because of a loop.

        Args:
            state: the state after the token.
            crossed: [slots] bool; whether the token opened or closed a block.
            ends_sentence: [slots] bool; whether it ends a sentence or line.
            looping: [slots] bool; whether the thinking ends in a loop; None if no
                slot detects loops.
        """
        room = self._room(state)
        # Forcing stops at the end of the sequence, after a marker, and before a character of a
        # continuation that does not fit the room.
        finished = crossed | (self._cell(self._sequences, state.cursor) == NO_TOKEN)
        if self._any_demands_thinking or self._any_nudge:
            start, end = self._layout.continuations_start, self._layout.close_start
            in_continuation = (state.cursor >= start) & (state.cursor < end)
            too_long = self._cell(self._character_spans, state.cursor) > room
            finished |= in_continuation & (state.incomplete_bytes == 0) & too_long
        state = state._replace(cursor=self._xp.where(finished, IDLE, state.cursor))

        closes = state.thinking & (state.cursor < self._layout.close_start) & (room == 0)
        sampling = self._is_sampling(state) & ~closes
        no_pending = state.pending == 0
        minimum_reached = state.tokens >= self._minimum
        near = room <= self._landing
        lands = sampling & ends_sentence & no_pending & near & minimum_reached
        closes |= lands
        if looping is not None:
            loops = sampling & ~lands & looping & (self._loop_detection > 0)
            state, closes_loop = self._nudge(state, loops)
            state = state._replace(loop_closed=state.loop_closed | closes_loop)
            closes |= closes_loop
        wraps_up = no_pending & (state.tokens + self._wrap_up_length <= self._maximum)
        cursor = self._layout.close_start + self._xp.where(wraps_up, 0, self._wrap_up_length)
        # The tokens of a partial marker that is completed do not count as thinking, so below
        # the minimum the whole marker is forced instead.
        completion = self._take(self._completion_start, state.matcher_state)
        cursor = self._xp.where(~no_pending & minimum_reached, completion, cursor)
        return state._replace(cursor=self._xp.where(closes, cursor, state.cursor))

    def _nudge(self, state: State, loops: Array) -> tuple[State, Array]:
        """Nudge loops, [slots] bool; also return the ones to close instead, [slots] bool."""
        after = state._replace(looped=state.looped | loops)
        if not self._any_nudge:
            return after, loops
        may_nudge = (self._nudge_length > 0) & ~state.looped & (state.pending == 0)
        nudged = loops & may_nudge & self._fits(state, self._nudge_length)
        reset = LoopState.empty(len(self._slots), self._arrays)
        after = after._replace(
            cursor=self._xp.where(nudged, self._layout.nudge_start, state.cursor),
            loops=reset.where(nudged, state.loops, self._arrays),
        )
        return after, loops & ~nudged

    def _room(self, state: State) -> Array:
        """Return the thinking tokens left, [slots] int64; see `BudgetStateMachine._room`."""
        left = self._maximum - state.tokens - state.pending
        before_wrap_up = left - self._wrap_up_length
        at_wrap_up = (before_wrap_up == 0) & (state.pending == 0)
        return self._xp.where((before_wrap_up > 0) | at_wrap_up, before_wrap_up, left)

    def _fits(self, state: State, length: Array) -> Array:
        return state.tokens + state.pending + length + self._wrap_up_length < self._maximum

    def _continuation_cell(self, state: State) -> Array:
        index = state.continuations % self._continuation_count
        return self._layout.continuations_start + index * self._layout.continuation_width

    def _continuation_length(self, state: State) -> Array:
        index = state.continuations % self._continuation_count
        lengths = self._xp.reshape(self._continuation_lengths, (-1,))
        return self._take(lengths, index * len(self._slots) + self._slots)

    def _cell(self, cells: Array, cursor: Array) -> Array:
        """Return the cell at the cursor in each slot's row of [slots, width], as [slots]."""
        return self._take(self._xp.reshape(cells, (-1,)), self._row_starts + cursor)


def _near_maximum_from(budget: TokenBudget, maximum: int) -> int:
    """Return the number of tokens from which on a maximum may cut a character."""
    return maximum - len(budget.wrap_up_ids) - MAX_CONTINUATION_BYTES
