"""The budgets of a whole batch as tensors: `budget.machine.Machine`, vectorised.

One slot holds one request. Every operation runs over all slots at once and none
reads a value back to the host, so a step costs the same for one row as for
hundreds. `step` changes nothing: it gives the state that follows, so that it can
also be folded over draft tokens that may yet be rejected.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from budget.loops import UNKNOWN_LETTERS
from budget.machine import Machine
from budget.markers import Markers, matched_prefix
from budget.phases import Event
from budget.policy import MAX_TEXT_TOKENS, MAX_TEXTS, OnLoop, TokenBudget
from budget.processors.loops import LoopState
from budget.processors.loops import step as loop_step
from budget.vocabulary import (
    ENDS,
    ENDS_AFTER_NO_DIGIT,
    IS_DIGIT,
    LONGEST_TAIL,
    OPAQUE,
    Vocabulary,
)

NO_TOKEN = -1
UNLIMITED = 2**62
_IDLE = 0  # every script's first cell: no token


class State(NamedTuple):
    """Where each slot stands; every tensor has shape [slots].

    Attributes:
        thinking: bool; whether the slot is inside a thinking block.
        tokens: int64; thinking tokens so far, markers excluded.
        pending: int64; how much of the next marker the last tokens match.
        continuations: int64; attempts turned into continuations.
        length: int64; tokens generated so far.
        cursor: int64; the cell of its scripts that comes next, 0 for none.
        looped: bool; whether a loop was found.
        missing: int64; bytes that the last character still lacks.
        after_digit: bool; whether the text ends in a digit.
        loops: what each slot's loop detector has taken.
    """

    thinking: torch.Tensor
    tokens: torch.Tensor
    pending: torch.Tensor
    continuations: torch.Tensor
    length: torch.Tensor
    cursor: torch.Tensor
    looped: torch.Tensor
    missing: torch.Tensor
    after_digit: torch.Tensor
    loops: LoopState

    @classmethod
    def empty(cls, slots: int, device: torch.device) -> "State":
        """Slots that hold nothing."""

        def numbers() -> torch.Tensor:
            return torch.zeros(slots, dtype=torch.int64, device=device)

        def flags() -> torch.Tensor:
            return torch.zeros(slots, dtype=torch.bool, device=device)

        return cls(
            thinking=flags(),
            tokens=numbers(),
            pending=numbers(),
            continuations=numbers(),
            length=numbers(),
            cursor=numbers(),
            looped=flags(),
            missing=numbers(),
            after_digit=flags(),
            loops=LoopState.empty(slots, device),
        )


class BudgetTable:
    """The budgets of up to `slots` requests, on any device.

    Attributes:
        state: where they stand.
    """

    def __init__(
        self,
        slots: int,
        markers: Markers,
        device: torch.device,
        vocabulary: Vocabulary = OPAQUE,
    ) -> None:
        self._markers = markers
        self._vocabulary = vocabulary
        self._device = device
        self._text = _Text(vocabulary, device)
        self._automaton = _Automaton(markers, device)
        self._end = torch.tensor(markers.end, device=device)
        self.state = State.empty(slots, device)

        # The policies, one column per slot.
        self._numbers = torch.zeros(8 + MAX_TEXTS, slots, dtype=torch.int64, device=device)
        self._minimum, self._maximum, self._owed, self._wrap_up, self._landing = self._numbers[:5]
        self._watched, self._nudge, self._text_count = self._numbers[5:8]
        self._text_length = self._numbers[8:]
        self._text_count += 1

        # One row of tokens per slot, each script closed by NO_TOKEN:
        # idle | start marker | continuations | nudge | wrap-up and end marker.
        self._texts_at = 1 + len(markers.start) + 1
        self._nudge_at = self._texts_at + MAX_TEXTS * (MAX_TEXT_TOKENS + 1)
        self._close_at = self._nudge_at + MAX_TEXT_TOKENS + 1
        width = self._close_at + MAX_TEXT_TOKENS + len(markers.end) + 1
        self._script = torch.full((slots, width), NO_TOKEN, dtype=torch.int64, device=device)
        # For each cell of a continuation, how many tokens the character that begins there takes.
        self._span = torch.zeros((slots, width), dtype=torch.int64, device=device)
        self._slots = torch.arange(slots, device=device)
        self._row = self._slots * width

        # What the host knows of the policies, to leave out what no slot asks for.
        self._guarding = np.zeros(slots, dtype=bool)
        self._nudging = np.zeros(slots, dtype=bool)
        self._watching = np.zeros(slots, dtype=bool)
        self._near_from = np.full(slots, UNLIMITED)

    def load(self, slot: int, budget: TokenBudget, machine: Machine) -> None:
        """Put a request into a slot, whatever the slot held before.

        Args:
            slot: index into the table.
            budget: the request's budget.
            machine: the reference machine, folded over the request's tokens.
        """
        state = self.state
        state.thinking[slot] = machine.thinking
        state.tokens[slot] = machine.tokens
        state.pending[slot] = machine.pending
        state.continuations[slot] = machine.continuations
        state.length[slot] = machine.length
        state.cursor[slot] = self._cursor_of(budget, machine)
        state.looped[slot] = machine.looped
        state.missing[slot] = machine.missing
        state.after_digit[slot] = machine.after_digit
        watched = LoopState.of(machine.detector)
        for column, row in zip(state.loops, watched, strict=True):
            column[slot] = row[0]
        self._guarding[slot] = budget.demands_thinking
        self._nudging[slot] = bool(budget.nudge_ids)
        self._watching[slot] = budget.on_loop is not OnLoop.OFF
        near = UNLIMITED if budget.maximum is None else budget.maximum - len(budget.wrap_up_ids)
        self._near_from[slot] = near - LONGEST_TAIL
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
            *lengths,
            *[0] * (MAX_TEXTS - len(lengths)),
        ]
        self._numbers[:, slot] = torch.tensor(numbers, device=self._device)
        self._script[slot] = torch.tensor(self._compose(budget), device=self._device)
        if budget.demands_thinking:
            self._span[slot] = torch.tensor(self._spans(budget), device=self._device)

    def unload(self, slot: int) -> None:
        """Leave a slot empty: what its request asked for is no longer worked for."""
        for asking in (self._guarding, self._nudging, self._watching):
            asking[slot] = False
        self._near_from[slot] = UNLIMITED

    def may_guard(self, slots: np.ndarray) -> np.ndarray:
        """[chosen] bool, on the host: in which of some `slots` `guarded` can ever hold."""
        return self._guarding[slots]

    def may_split(self, slots: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """[chosen] bool, on the host: where a character may come too close to the maximum.

        Args:
            slots: [chosen] int64.
            lengths: [chosen] int64; how many tokens each has generated at most.
        """
        return lengths >= self._near_from[slots]

    def advance(self, token: torch.Tensor, attempted: torch.Tensor) -> None:
        """Take one token per slot: `step`, for good."""
        self.state = self.step(self.state, token, attempted)

    def step(self, state: State, token: torch.Tensor, attempted: torch.Tensor) -> State:
        """The state after one more token per slot.

        Args:
            state: the state before.
            token: [slots] int64; NO_TOKEN leaves a slot as it is.
            attempted: [slots] bool; whether it stands for an attempt to close.
        """
        came = token >= 0
        cursor, continuations = state.cursor, state.continuations
        if self._guarding.any():
            cursor = torch.where(attempted, self._text_at(state), cursor)
            continuations = continuations + attempted
        cursor = cursor + (came & (cursor != _IDLE))

        matched = self._automaton.match(state.thinking, state.pending, token)
        crossed = came & (matched == self._automaton.length(state.thinking))
        counted = came & state.thinking
        known = self._text.known(token)
        missing, ends, after_digit = self._text.read(known, state.missing, state.after_digit)
        loops, looping = state.loops, None
        if self._watching.any():
            loops, looping = loop_step(loops, token, self._text.letters(known), counted)
        after = State(
            thinking=state.thinking ^ crossed,
            tokens=state.tokens + torch.where(counted, state.pending + 1 - matched, 0),
            pending=torch.where(came, torch.where(crossed, 0, matched), state.pending),
            continuations=continuations,
            length=state.length + came,
            cursor=cursor,
            looped=state.looped,
            missing=torch.where(came, missing, state.missing),
            after_digit=torch.where(came, after_digit, state.after_digit),
            loops=loops,
        )
        return self._limit(after, crossed, came & ends, looping)

    def forced(self, state: State) -> torch.Tensor:
        """[slots] int64: the token that must come next, or NO_TOKEN."""
        return self._at(self._script, state.cursor)

    def free(self, state: State) -> torch.Tensor:
        """[slots] bool: thinking, and the model chooses the next token."""
        return state.thinking & (state.cursor == _IDLE)

    def guarded(self, state: State) -> torch.Tensor:
        """[slots] bool: an attempt to close the thinking here becomes a continuation."""
        if not self._guarding.any():
            return torch.zeros_like(state.thinking)
        due = (state.continuations < self._owed) & self._fits(state, self._length_of_text(state))
        return self.free(state) & ~state.looped & ((state.tokens < self._minimum) | due)

    def continuation(self, state: State) -> torch.Tensor:
        """[slots] int64: the first token of the next continuation."""
        return self._at(self._script, self._text_at(state))

    def closes(self, state: State) -> torch.Tensor:
        """[slots] int64: the token that would complete the end marker here, or NO_TOKEN."""
        complete = state.thinking & (state.pending == len(self._markers.end) - 1)
        return torch.where(complete, self._end[-1], NO_TOKEN)

    def end_token(self, state: State) -> torch.Tensor:
        """[slots] int64: the next token of the end marker, for a slot that is thinking."""
        if len(self._markers.end) == 1:
            return self._end.expand_as(state.pending)
        return self._end[state.pending.clamp(max=len(self._markers.end) - 1)]

    def forbidden(self, state: State) -> torch.Tensor:
        """[slots] int64: a token that must not come next, or NO_TOKEN.

        It would open a block with nothing left to think.
        """
        last = len(self._markers.start) - 1
        spent = (state.tokens >= self._maximum) & (state.pending == last)
        applies = ~state.thinking & (state.cursor == _IDLE) & spent
        return torch.where(applies, self._markers.start[-1], NO_TOKEN)

    def most_missing(self, state: State) -> torch.Tensor:
        """[slots] int64: most bytes that a character may lack after the next token."""
        limit = (self._room(state) - 1).clamp(max=LONGEST_TAIL)
        return torch.where(self.free(state), limit, LONGEST_TAIL)

    @property
    def unfinished(self) -> torch.Tensor:
        """[columns] int64: the tokens that can end inside a character."""
        return self._text.unfinished

    def splits(self, state: State, slots: torch.Tensor) -> torch.Tensor:
        """[chosen, columns] bool: which of `unfinished` would lack too much, in those `slots`."""
        missing, most = state.missing[slots], self.most_missing(state)[slots]
        return self._text.lacking[missing] > most[:, None]

    def _limit(
        self,
        state: State,
        crossed: torch.Tensor,
        ends: torch.Tensor,
        looping: torch.Tensor | None,
    ) -> State:
        """Begin to close at the maximum or shortly before it, or to leave a loop."""
        room = self._room(state)
        over = crossed | (self._at(self._script, state.cursor) == NO_TOKEN)
        if self._guarding.any():
            in_text = (state.cursor >= self._texts_at) & (state.cursor < self._close_at)
            too_long = self._at(self._span, state.cursor) > room
            over |= in_text & (state.missing == 0) & too_long
        state = state._replace(cursor=torch.where(over, _IDLE, state.cursor))

        closes = state.thinking & (state.cursor < self._close_at) & (room == 0)
        free = self.free(state) & ~closes
        unmarked = state.pending == 0
        enough = state.tokens >= self._minimum
        lands = free & ends & unmarked & (room <= self._landing) & enough
        closes |= lands
        if looping is not None:
            found = free & ~lands & looping & (self._watched > 0)
            state, unhelped = self._nudged(state, found)
            closes |= unhelped
        wraps = unmarked & (state.tokens + self._wrap_up <= self._maximum)
        # A half-matched marker that is completed counts for nothing: not under the minimum.
        begin = torch.where(enough, state.pending, 0)
        close = self._close_at + torch.where(wraps, 0, self._wrap_up + begin)
        return state._replace(cursor=torch.where(closes, close, state.cursor))

    def _nudged(self, state: State, found: torch.Tensor) -> tuple[State, torch.Tensor]:
        """Nudge out of loops; [slots] bool: in which of those `found` to close instead."""
        after = state._replace(looped=state.looped | found)
        if not self._nudging.any():
            return after, found
        may = (self._nudge > 0) & ~state.looped & (state.pending == 0)
        nudged = found & may & self._fits(state, self._nudge)
        after = after._replace(
            cursor=torch.where(nudged, self._nudge_at, state.cursor),
            loops=LoopState.empty(len(nudged), self._device).choose(nudged, state.loops),
        )
        return after, found & ~nudged

    def _room(self, state: State) -> torch.Tensor:
        """[slots] int64: tokens that may still be thought; see `Machine._room`."""
        left = self._maximum - state.tokens - state.pending
        before = left - self._wrap_up
        return torch.where((before > 0) | ((before == 0) & (state.pending == 0)), before, left)

    def _fits(self, state: State, length: torch.Tensor) -> torch.Tensor:
        return state.tokens + state.pending + length + self._wrap_up < self._maximum

    def _text_at(self, state: State) -> torch.Tensor:
        which = state.continuations % self._text_count
        return self._texts_at + which * (MAX_TEXT_TOKENS + 1)

    def _length_of_text(self, state: State) -> torch.Tensor:
        which = state.continuations % self._text_count
        return self._text_length.flatten()[which * len(self._slots) + self._slots]

    def _at(self, cells: torch.Tensor, cursor: torch.Tensor) -> torch.Tensor:
        return cells.flatten().index_select(0, self._row + cursor)

    def _compose(self, budget: TokenBudget) -> list[int]:
        def cells(ids: Sequence[int], width: int) -> list[int]:
            return [*ids, *[NO_TOKEN] * (width - len(ids))]

        row = [NO_TOKEN, *cells(self._markers.start, len(self._markers.start) + 1)]
        for text in range(MAX_TEXTS):
            ids = budget.continuation_ids[text] if text < len(budget.continuation_ids) else ()
            row += cells(ids, MAX_TEXT_TOKENS + 1)
        row += cells(budget.nudge_ids, MAX_TEXT_TOKENS + 1)
        row += cells((*budget.wrap_up_ids, *self._markers.end), self._script.shape[1] - len(row))
        return row

    def _spans(self, budget: TokenBudget) -> list[int]:
        """For each cell of the continuations, how many tokens the character there takes."""
        spans = [0] * self._script.shape[1]
        for text, ids in enumerate(budget.continuation_ids):
            begin = self._texts_at + text * (MAX_TEXT_TOKENS + 1)
            for cell in range(len(ids)):
                spans[begin + cell] = self._vocabulary.span(ids[cell:])
        return spans

    def _cursor_of(self, budget: TokenBudget, machine: Machine) -> int:
        """Where in the slot's scripts the machine's remaining script begins."""
        left = machine.script_length
        if not left:
            return _IDLE
        if machine.closing:
            return self._close_at + len(budget.wrap_up_ids) + len(self._markers.end) - left
        if not machine.thinking:
            return 1 + len(self._markers.start) - left
        if machine.event is Event.NUDGE:
            return self._nudge_at + len(budget.nudge_ids) - left
        text = (machine.continuations - 1) % len(budget.continuation_ids)
        begin = self._texts_at + text * (MAX_TEXT_TOKENS + 1)
        return begin + len(budget.continuation_ids[text]) - left


class _Automaton:
    """The two markers as Knuth-Morris-Pratt automata, start marker first."""

    def __init__(self, markers: Markers, device: torch.device) -> None:
        both = (markers.start, markers.end)
        self._width = max(map(len, both))
        tokens = torch.full((2, self._width), NO_TOKEN - 1, dtype=torch.int64)
        fallback = torch.zeros((2, self._width), dtype=torch.int64)
        for which, marker in enumerate(both):
            tokens[which, : len(marker)] = torch.tensor(marker)
            for matched in range(1, len(marker)):
                fallback[which, matched] = matched_prefix(marker[1:matched], marker)
        self._tokens = tokens.flatten().to(device)
        self._fallback = fallback.flatten().to(device)
        self._lengths = [len(marker) for marker in both]

    def length(self, thinking: torch.Tensor) -> torch.Tensor:
        """[slots] int64: the length of the marker that is looked for."""
        start, end = self._lengths
        return torch.where(thinking, end, start)

    def match(
        self, thinking: torch.Tensor, pending: torch.Tensor, token: torch.Tensor
    ) -> torch.Tensor:
        """[slots] int64: how much of the next marker the last tokens match now."""
        first = thinking * self._width
        matched = pending
        for _ in range(self._width - 1):
            at = first + matched
            differs = self._tokens[at] != token
            matched = torch.where(differs, self._fallback[at], matched)
        hits = self._tokens.index_select(0, first + matched) == token
        return torch.where(hits, matched + 1, 0)


class _Text:
    """What a vocabulary tells of tokens, as tensors.

    Attributes:
        unfinished: [columns] int64; the tokens that can end inside a character.
        lacking: [4, columns] uint8; their part of `Vocabulary.missing`.
    """

    def __init__(self, vocabulary: Vocabulary, device: torch.device) -> None:
        # One more token, without text, stands for those that the vocabulary does not have.
        self._size = len(vocabulary.traits)
        lacking = [[*list(after), 0] for after in vocabulary.missing]
        missing = torch.tensor(lacking, dtype=torch.uint8)
        unfinished = missing.any(dim=0).nonzero()[:, 0]
        self._missing = missing.flatten().to(device)
        self.lacking = missing[:, unfinished].to(device)
        self.unfinished = unfinished.to(device)
        traits = [*list(vocabulary.traits), 0]
        unknown = [UNKNOWN_LETTERS] * (self._size + 1 - len(vocabulary.letters))
        self._letters = torch.tensor(
            [*vocabulary.letters, *unknown], dtype=torch.int32, device=device
        )
        self._traits = torch.tensor(traits, dtype=torch.uint8, device=device)

    def known(self, token: torch.Tensor) -> torch.Tensor:
        """[slots] int64: the token, or a stand-in without text if the vocabulary lacks it."""
        return torch.where((token >= 0) & (token < self._size), token, self._size)

    def letters(self, known: torch.Tensor) -> torch.Tensor:
        """[slots] int32: see `Vocabulary.letters`."""
        return self._letters.index_select(0, known)

    def read(
        self, known: torch.Tensor, missing: torch.Tensor, after_digit: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What follows a token, each [slots]: bytes missing, end of sentence, digit."""
        lacking = self._missing.index_select(0, missing * (self._size + 1) + known)
        traits = self._traits.index_select(0, known)
        ending = torch.where(after_digit, ENDS, ENDS | ENDS_AFTER_NO_DIGIT)
        return lacking.long(), (traits & ending) != 0, (traits & IS_DIGIT) != 0
