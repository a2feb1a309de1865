"""The budgets of a whole batch as arrays: `proctor.budget.machine.BudgetStateMachine`, vectorised.

One slot holds one request. Every operation runs over all slots at once and none
reads a value back to the host, so a step costs the same for one row as for
hundreds. `step` changes nothing: it gives the state that follows, so that it can
also be folded over draft tokens that may yet be rejected.
"""

import copy
from typing import NamedTuple

import numpy as np

from proctor.budget.budgets import MAX_TEXTS, OnLoop, TokenBudget
from proctor.budget.machine import BudgetStateMachine
from proctor.budget.markers import Markers
from proctor.budget.matcher import Crossing
from proctor.budget.processors.backend import Array, ArrayBackend
from proctor.budget.processors.forced_sequences import IDLE, NO_TOKEN, ForcedSequences
from proctor.budget.processors.loops import LoopDetectors, LoopState
from proctor.budget.processors.marker_matcher import BatchMarkerMatcher, has_barred
from proctor.budget.processors.vocabulary_arrays import VocabularyArrays
from proctor.budget.vocabulary import MAX_CONTINUATION_BYTES, UNKNOWN_VOCABULARY, Vocabulary

UNLIMITED = 2**62


class State(NamedTuple):
    """Where each slot stands; every array but `widths` has shape [slots].

    Attributes:
        thinking: bool; whether the slot is inside a thinking block.
        tokens: int64; thinking tokens so far, markers excluded.
        matched: int64; the state of the matcher.
        answered: int64; answer tokens so far, in slots whose answer has a minimum.
        pending: int64; the last tokens that may turn out to be part of a marker.
        widths: [slots, reach] int64; symbols of the last tokens, newest first.
        continuations: int64; attempts turned into continuations.
        length: int64; tokens generated so far.
        cursor: int64; the cell of its scripts that comes next, 0 for none.
        looped: bool; whether a loop was found.
        loop_closed: bool; whether a loop was closed.
        incomplete_bytes: int64; bytes that the last character still lacks.
        partial: int64; see `Vocabulary.partial`.
        after_digit: bool; whether the text ends in a digit.
        loops: what each slot's loop detector has taken.
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
        """Slots that hold nothing; `reach` is how far back markers are looked for, in symbols."""

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


class TokenConstraints(NamedTuple):
    """What budgets ask of the next token of some rows; every array has shape [rows].

    Attributes:
        forced: the token that must come, or NO_TOKEN.
        barred: the matcher's state where tokens must not come that would open
            a block with nothing left to think, or NO_TOKEN; see
            `MarkerMatcher.barred`.
        bars_end: bool; whether no end of turn may come.
        may_close: bool; whether the model chooses, and may close its thinking.
        suppresses_close: bool; whether an attempt to close becomes a continuation.
        continuation: the first token of the next continuation.
        end: the next token of the end marker, for a row that is thinking.
        matched: the matcher's state.
        length: tokens generated so far.
        incomplete_bytes: bytes that the last character still lacks.
        most_missing: most bytes that one may lack after the token.
    """

    forced: Array
    barred: Array
    bars_eos: Array
    may_close: Array
    suppresses_close: Array
    continuation: Array
    end: Array
    matcher_state: Array
    length: Array
    incomplete_bytes: Array
    max_incomplete_bytes: Array


class BudgetTable:
    """The budgets of up to `slots` requests, on any device.

    Attributes:
        state: where they stand.
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
        self._text = VocabularyArrays(vocabulary, arrays)
        self._automaton = BatchMarkerMatcher(markers, vocabulary, arrays)
        self._detectors = LoopDetectors(arrays)
        self._scripts = scripts = ForcedSequences(markers, vocabulary)
        self._rest_at = arrays.bring(scripts.rest_at)
        matcher = self._automaton.matcher
        ends = [
            matcher.completion(state)[0] if matcher.inside <= state < matcher.inert else NO_TOKEN
            for state in range(matcher.states)
        ]
        self._end = arrays.bring(ends)
        self._has_barred = arrays.move(has_barred(matcher))
        self._allocate(slots)

    def _allocate(self, slots: int) -> None:
        """Begin with so many slots that hold nothing."""
        arrays, scripts = self._arrays, self._scripts
        self.state = State.empty(slots, self._automaton.reach, arrays)

        # The policies, one column per slot.
        self._numbers = arrays.zeros((10 + MAX_TEXTS, slots))
        self._minimum, self._maximum, self._owed, self._wrap_up, self._landing = self._numbers[:5]
        self._watched, self._nudge, self._text_count = self._numbers[5:8]
        self._least_answer, self._bound = self._numbers[8:10]
        self._text_length = self._numbers[10:]
        self._text_count += 1

        # One row of tokens per slot, and what comes next in it.
        self._script = arrays.zeros((slots, scripts.width)) + NO_TOKEN
        # For each cell of a continuation, how many tokens the character that begins there takes.
        self._span = arrays.zeros((slots, scripts.width))
        self._slots = arrays.bring(range(slots))
        self._row = self._slots * scripts.width

        # What the host knows of the policies, to leave out what no slot asks for.
        self._guarding = np.zeros(slots, dtype=bool)
        self._nudging = np.zeros(slots, dtype=bool)
        self._watching = np.zeros(slots, dtype=bool)
        self._barring = np.zeros(slots, dtype=bool)
        self._near_from = np.full(slots, UNLIMITED)
        self._guards = self._nudges = self._watches = self._bars = False

    def load(self, slot: int, budget: TokenBudget, machine: BudgetStateMachine) -> None:
        """Put a request into a slot, whatever the slot held before.

        Args:
            slot: index into the table.
            budget: the request's budget.
            machine: the reference machine, folded over the request's tokens.
        """
        state = self.state
        state.thinking[slot] = machine.thinking
        state.tokens[slot] = machine.tokens
        state.matcher_state[slot] = machine.matcher_state
        state.answer_tokens[slot] = machine.answer_tokens
        state.pending[slot] = machine.pending
        state.widths[slot] = self._arrays.bring(machine.last_widths(self._automaton.reach))
        state.continuations[slot] = machine.continuations
        state.length[slot] = machine.length
        state.cursor[slot] = self._scripts.cursor_of(budget, machine)
        state.looped[slot] = machine.looped
        state.loop_closed[slot] = machine.loop_closed
        state.incomplete_bytes[slot] = machine.incomplete_bytes
        state.partial[slot] = machine.partial
        state.after_digit[slot] = machine.after_digit
        state.loops.load(slot, machine.detector, self._arrays)
        self._guarding[slot] = budget.demands_thinking
        self._nudging[slot] = bool(budget.nudge_ids)
        self._watching[slot] = budget.on_loop is not OnLoop.OFF
        self._barring[slot] = budget.answer_minimum > 0
        near = UNLIMITED if budget.maximum is None else budget.maximum - len(budget.wrap_up_ids)
        self._near_from[slot] = near - MAX_CONTINUATION_BYTES
        self._sum_up()
        lengths = [len(text) for text in budget.continuation_ids]
        numbers = [
            budget.minimum,
            UNLIMITED if budget.maximum is None else budget.maximum,
            budget.continuations,
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
        self._numbers[:, slot] = self._arrays.bring(numbers)
        self._script[slot] = self._arrays.bring(self._scripts.compose(budget))
        if budget.demands_thinking:
            self._span[slot] = self._arrays.bring(self._scripts.spans(budget))

    def unload(self, slot: int) -> None:
        """Leave a slot empty: what its request asked for is no longer worked for."""
        for asking in (self._guarding, self._nudging, self._watching, self._barring):
            asking[slot] = False
        self._near_from[slot] = UNLIMITED
        self._sum_up()

    def resized(self, slots: int) -> "BudgetTable":
        """A table of so many slots; the first of them are these."""
        other = copy.copy(self)
        other._allocate(slots)
        both = min(slots, len(self._slots))
        for mine, its in zip(self._by_slot(), other._by_slot(), strict=True):
            its[:both] = mine[:both]
        other._sum_up()
        return other

    def _by_slot(self) -> list[Array]:
        """All that is held of slots, the first axis theirs."""
        state = [*self.state[:-1], *self.state.loops]
        host = [self._guarding, self._nudging, self._watching, self._barring, self._near_from]
        return [*state, self._numbers.T, self._script, self._span, *host]

    def _sum_up(self) -> None:
        self._guards = bool(self._guarding.any())
        self._nudges = bool(self._nudging.any())
        self._watches = bool(self._watching.any())
        self._bars = bool(self._barring.any())

    def may_guard(self, slots: np.ndarray) -> np.ndarray:
        """[chosen] bool, on the host: in which of some `slots` attempts may be turned down."""
        return self._guarding[slots]

    def may_bar(self, slots: np.ndarray) -> np.ndarray:
        """[chosen] bool, on the host: in which of some `slots` an answer has a minimum."""
        return self._barring[slots]

    def may_split(self, slots: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """[chosen] bool, on the host: where a character may come too close to the maximum.

        Args:
            slots: [chosen] int64.
            lengths: [chosen] int64; how many tokens each has generated at most.
        """
        return lengths >= self._near_from[slots]

    def advance(self, token: Array, attempted: Array) -> None:
        """Take one token per slot: `step`, for good."""
        self.state = self.step(self.state, token, attempted)

    def step(self, state: State, token: Array, attempted: Array) -> State:
        """The state after one more token per slot.

        Args:
            state: the state before.
            token: [slots] int64; NO_TOKEN leaves a slot as it is.
            attempted: [slots] bool; whether it stands for an attempt to close.
        """
        came = token >= 0
        cursor, continuations = state.cursor, state.continuations
        matcher_state, pending = state.matcher_state, state.pending
        if self._guards:
            cursor = self._xp.where(attempted, self._text_at(state), cursor)
            continuations = continuations + attempted
            # The beginning of a marker that was turned down is neither marker nor thinking.
            matcher_state = self._xp.where(attempted, self._automaton.matcher.inside, matcher_state)
            pending = self._xp.where(attempted, 0, pending)
        cursor = cursor + (came & (cursor != IDLE))

        found = self._automaton.match(matcher_state, token)
        crosses = came & (found.crossing != Crossing.NONE)
        crossed = crosses & (found.crossing != Crossing.STRAY)
        overlap, widths = self._overlap(state.widths, token, found.span, pending, came)
        next_state = self._xp.where(
            crossed & (found.crossing == Crossing.CLOSED) & (self._bound > 0),
            self._automaton.matcher.inert,
            found.state,
        )
        counted = came & state.thinking
        certain = pending + 1 - overlap
        answer_tokens = state.answer_tokens
        if self._bars:
            answer_tokens = answer_tokens + self._xp.where(came & ~state.thinking, certain, 0)
        known = self._text.known(token)
        read = self._text.read(known, state.incomplete_bytes, state.partial, state.after_digit)
        loops, looping = state.loops, None
        if self._watches:
            loops, looping = self._detectors.step(loops, token, self._text.weights(known), counted)
        after = State(
            thinking=state.thinking ^ crossed,
            tokens=state.tokens + self._xp.where(counted, certain, 0),
            matcher_state=self._xp.where(came, next_state, state.matcher_state),
            answer_tokens=answer_tokens,
            pending=self._xp.where(came, self._xp.where(crosses, 0, overlap), state.pending),
            widths=widths,
            continuations=continuations,
            length=state.length + came,
            cursor=cursor,
            looped=state.looped,
            loop_closed=state.loop_closed,
            incomplete_bytes=self._xp.where(came, read.incomplete_bytes, state.incomplete_bytes),
            partial=self._xp.where(came, read.partial, state.partial),
            after_digit=self._xp.where(came, read.after_digit, state.after_digit),
            loops=loops,
        )
        return self._limit(after, crossed, came & read.ends, looping)

    def _overlap(
        self, widths: Array, token: Array, span: Array, pending: Array, came: Array
    ) -> tuple[Array, Array]:
        """How many of the tokens held and the newest the last `span` symbols take.

        Returns:
            [slots] int64, and `State.widths` after the token.
        """
        if not self._automaton.reach:
            return self._xp.astype(span > 0, self._xp.int64), widths
        newest = self._automaton.width(token)
        overlap = self._automaton.overlap(widths, newest, span)
        after = self._xp.concat((newest[:, None], widths[:, :-1]), axis=1)
        both = self._xp.where(overlap > pending + 1, pending + 1, overlap)
        return both, self._xp.where(came[:, None], after, widths)

    def demands(self, state: State, slots: Array) -> TokenConstraints:
        """What holds for the next token of some `slots`, [rows] int64."""
        suppresses_close = self._guarded(state)
        columns = TokenConstraints(
            forced=self._at(self._script, state.cursor),
            barred=self._barred(state),
            bars_eos=self._bars_end(state),
            may_close=self._free(state) & ~suppresses_close,
            suppresses_close=suppresses_close,
            continuation=self._at(self._script, self._text_at(state)),
            end=self._take(self._end, state.matcher_state),
            matcher_state=state.matcher_state,
            length=state.length,
            incomplete_bytes=state.incomplete_bytes,
            max_incomplete_bytes=self._most_missing(state),
        )
        return TokenConstraints(*(self._take(column, slots) for column in columns))

    def _free(self, state: State) -> Array:
        """[slots] bool: thinking, and the model chooses the next token."""
        return state.thinking & (state.cursor == IDLE)

    def _guarded(self, state: State) -> Array:
        if not self._guards:
            return self._xp.zeros_like(state.thinking)
        due = (state.continuations < self._owed) & self._fits(state, self._length_of_text(state))
        return self._free(state) & ~state.loop_closed & ((state.tokens < self._minimum) | due)

    def _barred(self, state: State) -> Array:
        spent = (state.tokens >= self._maximum) & self._take(self._has_barred, state.matcher_state)
        applies = ~state.thinking & (state.cursor == IDLE) & spent
        return self._xp.where(applies, state.matcher_state, NO_TOKEN)

    def _bars_end(self, state: State) -> Array:
        if not self._bars:
            return self._xp.zeros_like(state.thinking)
        answering = ~state.thinking & (state.cursor == IDLE)
        return answering & (state.answer_tokens + state.pending < self._least_answer)

    def _most_missing(self, state: State) -> Array:
        limit = self._room(state) - 1
        close = self._free(state) & (limit < MAX_CONTINUATION_BYTES)
        return self._xp.where(close, limit, MAX_CONTINUATION_BYTES)

    def _limit(
        self,
        state: State,
        crossed: Array,
        ends: Array,
        looping: Array | None,
    ) -> State:
        """Begin to close at the maximum or shortly before it, or to leave a loop."""
        room = self._room(state)
        over = crossed | (self._at(self._script, state.cursor) == NO_TOKEN)
        if self._guards:
            begin, end = self._scripts.texts_at, self._scripts.close_at
            in_text = (state.cursor >= begin) & (state.cursor < end)
            too_long = self._at(self._span, state.cursor) > room
            over |= in_text & (state.incomplete_bytes == 0) & too_long
        state = state._replace(cursor=self._xp.where(over, IDLE, state.cursor))

        closes = state.thinking & (state.cursor < self._scripts.close_at) & (room == 0)
        free = self._free(state) & ~closes
        unmarked = state.pending == 0
        enough = state.tokens >= self._minimum
        lands = free & ends & unmarked & (room <= self._landing) & enough
        closes |= lands
        if looping is not None:
            found = free & ~lands & looping & (self._watched > 0)
            state, unhelped = self._nudged(state, found)
            state = state._replace(loop_closed=state.loop_closed | unhelped)
            closes |= unhelped
        wraps = unmarked & (state.tokens + self._wrap_up <= self._maximum)
        # A half-matched marker that is completed counts for nothing: not under the minimum.
        close = self._scripts.close_at + self._xp.where(wraps, 0, self._wrap_up)
        close = self._xp.where(
            ~unmarked & enough, self._take(self._rest_at, state.matcher_state), close
        )
        return state._replace(cursor=self._xp.where(closes, close, state.cursor))

    def _nudged(self, state: State, found: Array) -> tuple[State, Array]:
        """Nudge out of loops; [slots] bool: in which of those `found` to close instead."""
        after = state._replace(looped=state.looped | found)
        if not self._nudges:
            return after, found
        may = (self._nudge > 0) & ~state.looped & (state.pending == 0)
        nudged = found & may & self._fits(state, self._nudge)
        nothing = LoopState.empty(len(self._slots), self._arrays)
        after = after._replace(
            cursor=self._xp.where(nudged, self._scripts.nudge_at, state.cursor),
            loops=nothing.choose(nudged, state.loops, self._arrays),
        )
        return after, found & ~nudged

    def _room(self, state: State) -> Array:
        """[slots] int64: tokens that may still be thought; see `BudgetStateMachine._room`."""
        left = self._maximum - state.tokens - state.pending
        before = left - self._wrap_up
        return self._xp.where((before > 0) | ((before == 0) & (state.pending == 0)), before, left)

    def _fits(self, state: State, length: Array) -> Array:
        return state.tokens + state.pending + length + self._wrap_up < self._maximum

    def _text_at(self, state: State) -> Array:
        which = state.continuations % self._text_count
        return self._scripts.texts_at + which * self._scripts.text_width

    def _length_of_text(self, state: State) -> Array:
        which = state.continuations % self._text_count
        cells = self._xp.reshape(self._text_length, (-1,))
        return self._take(cells, which * len(self._slots) + self._slots)

    def _at(self, cells: Array, cursor: Array) -> Array:
        return self._take(self._xp.reshape(cells, (-1,)), self._row + cursor)
