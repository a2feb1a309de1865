"""The budgets of a whole batch as tensors: `budget.machine.Machine`, vectorised.

One slot holds one request. Every operation runs over all slots at once, so a
step costs the same for one row as for hundreds, and nothing here reads a value
back to the host except `record`.
"""

from collections.abc import Sequence

import torch

from budget.machine import Machine
from budget.markers import Markers, matched_prefix
from budget.policy import MAX_TEXT_TOKENS, MAX_TEXTS, TokenBudget

NO_TOKEN = -1
UNLIMITED = 2**62
_IDLE = 0  # every script's first cell: no token


class BudgetTable:
    """State of up to `slots` requests, on any device.

    Attributes (each of shape [slots]):
        thinking: bool; whether the slot is inside a thinking block.
        tokens: int64; thinking tokens so far, markers excluded.
        pending: int64; how much of the next marker the last tokens match.
        continuations: int64; attempts turned into continuations.
        length: int64; tokens generated so far.
        attempt: bool; whether the token now being sampled stands for an
            attempt to close. The adapter sets it, `advance` consumes it.
    """

    def __init__(self, slots: int, markers: Markers, max_length: int, device: torch.device) -> None:
        self._markers = markers
        self._device = device

        def column(dtype: torch.dtype = torch.int64) -> torch.Tensor:
            return torch.zeros(slots, dtype=dtype, device=device)

        self.thinking = column(torch.bool)
        self.tokens, self.pending, self.continuations, self.length = (column() for _ in range(4))
        self.attempt = column(torch.bool)
        self._minimum, self._maximum, self._owed, self._wrap_up_length = (
            column() for _ in range(4)
        )

        # One row of tokens per slot, each script closed by NO_TOKEN:
        # idle | start marker | continuations | wrap-up and end marker.
        start_cells = len(markers.start) + 1
        text_cells = MAX_TEXTS * (MAX_TEXT_TOKENS + 1)
        self._close_at = 1 + start_cells + text_cells
        width = self._close_at + MAX_TEXT_TOKENS + len(markers.end) + 1
        self._script = torch.full((slots, width), NO_TOKEN, dtype=torch.int64, device=device)
        self._cursor = column()
        self._text_count = torch.ones(slots, dtype=torch.int64, device=device)
        self._text_length = torch.zeros(slots, MAX_TEXTS, dtype=torch.int64, device=device)

        self._attempts = torch.zeros(slots, max_length, dtype=torch.bool, device=device)
        self._slots = torch.arange(slots, device=device)
        self._marker, self._fallback, self._marker_length = _automata(markers, device)
        self._end = torch.tensor(markers.end, device=device)

    def load(self, slot: int, budget: TokenBudget, machine: Machine, record: Sequence[int]) -> None:
        """Put a request into a slot, whatever the slot held before.

        Args:
            slot: index into the table.
            budget: the request's budget.
            machine: the reference machine, folded over the request's tokens.
            record: the positions of attempts among those tokens.
        """
        self.thinking[slot] = machine.thinking
        self.tokens[slot] = machine.tokens
        self.pending[slot] = machine.pending
        self.continuations[slot] = machine.continuations
        self.length[slot] = machine.length
        self.attempt[slot] = False
        self._minimum[slot] = budget.minimum
        self._maximum[slot] = UNLIMITED if budget.maximum is None else budget.maximum
        self._owed[slot] = budget.continuations
        self._wrap_up_length[slot] = len(budget.wrap_up_ids)
        self._script[slot] = torch.tensor(self._compose(budget), device=self._device)
        self._text_count[slot] = max(1, len(budget.continuation_ids))
        lengths = [len(text) for text in budget.continuation_ids]
        self._text_length[slot] = torch.tensor(lengths + [0] * (MAX_TEXTS - len(lengths)))
        self._cursor[slot] = self._cursor_of(budget, machine)
        self._attempts[slot] = False
        self._attempts[slot, list(record)] = True

    def advance(self, token: torch.Tensor) -> None:
        """Take one token per slot. `token` has shape [slots]; NO_TOKEN leaves a slot as it is."""
        came = token >= 0
        attempted = self.attempt & came
        self._attempts[self._slots, self.length.clamp(max=self._attempts.shape[1] - 1)] |= attempted
        self.attempt = self.attempt & ~came
        self.length += came

        cursor = torch.where(attempted, self._text_at(), self._cursor)
        cursor = cursor + (came & (cursor != _IDLE))
        self.continuations += attempted

        matched = self._match(token)
        which = self.thinking.long()
        crossed = came & (matched == self._marker_length[which])
        counted = came & self.thinking
        self.tokens += torch.where(counted, self.pending + 1 - matched, 0)
        self.pending = torch.where(came, torch.where(crossed, 0, matched), self.pending)
        self.thinking = self.thinking ^ crossed
        cursor = torch.where(crossed | (self._at(cursor) == NO_TOKEN), _IDLE, cursor)
        self._cursor = self._close_at_cap(cursor)

    @property
    def forced(self) -> torch.Tensor:
        """[slots] int64: the token that must come next, or NO_TOKEN."""
        return self._at(self._cursor)

    @property
    def free(self) -> torch.Tensor:
        """[slots] bool: thinking, and the model chooses the next token."""
        return self.thinking & (self._cursor == _IDLE)

    @property
    def guarded(self) -> torch.Tensor:
        """[slots] bool: an attempt to close the thinking here becomes a continuation."""
        needed = self._text_length.gather(1, self._text[:, None])[:, 0] + self._wrap_up_length
        fits = self.tokens + self.pending + needed < self._maximum
        due = (self.continuations < self._owed) & fits
        return self.free & ((self.tokens < self._minimum) | due)

    @property
    def continuation(self) -> torch.Tensor:
        """[slots] int64: the first token of the next continuation."""
        return self._at(self._text_at())

    @property
    def closes(self) -> torch.Tensor:
        """[slots] int64: the token that would complete the end marker here, or NO_TOKEN."""
        complete = self.thinking & (self.pending == len(self._markers.end) - 1)
        return torch.where(complete, self._end[-1], NO_TOKEN)

    @property
    def end_token(self) -> torch.Tensor:
        """[slots] int64: the next token of the end marker, for a slot that is thinking."""
        return self._end[self.pending.clamp(max=len(self._markers.end) - 1)]

    @property
    def forbidden(self) -> torch.Tensor:
        """[slots] int64: a token that must not come next, or NO_TOKEN.

        It would open a block with nothing left to think.
        """
        last = len(self._markers.start) - 1
        spent = (self.tokens >= self._maximum) & (self.pending == last)
        applies = ~self.thinking & (self._cursor == _IDLE) & spent
        return torch.where(applies, self._markers.start[-1], NO_TOKEN)

    def record(self, slot: int) -> list[int]:
        """Positions of attempts among the slot's tokens, the one being sampled included."""
        positions: list[int] = self._attempts[slot].nonzero()[:, 0].tolist()
        return positions + ([int(self.length[slot])] if self.attempt[slot] else [])

    @property
    def _text(self) -> torch.Tensor:
        return self.continuations % self._text_count

    def _text_at(self) -> torch.Tensor:
        return self._first_text_at + self._text * (MAX_TEXT_TOKENS + 1)

    @property
    def _first_text_at(self) -> int:
        return 1 + len(self._markers.start) + 1

    def _at(self, cursor: torch.Tensor) -> torch.Tensor:
        return self._script.gather(1, cursor[:, None])[:, 0]

    def _match(self, token: torch.Tensor) -> torch.Tensor:
        """[slots] int64: how much of the next marker the last tokens match now (KMP)."""
        which = self.thinking.long()
        matched = self.pending
        for _ in range(self._marker.shape[1] - 1):
            differs = self._marker[which, matched] != token
            matched = torch.where(differs, self._fallback[which, matched], matched)
        return torch.where(self._marker[which, matched] == token, matched + 1, 0)

    def _close_at_cap(self, cursor: torch.Tensor) -> torch.Tensor:
        still_open = self.thinking & (cursor < self._close_at)
        spent = self.tokens + self.pending
        wraps = still_open & (self.pending == 0) & (spent + self._wrap_up_length == self._maximum)
        closes = still_open & ~wraps & (spent >= self._maximum)
        begin = torch.where(self.tokens >= self._minimum, self.pending, 0)
        bare = self._close_at + self._wrap_up_length + begin
        return torch.where(wraps, self._close_at, torch.where(closes, bare, cursor))

    def _compose(self, budget: TokenBudget) -> list[int]:
        def cells(ids: Sequence[int], width: int) -> list[int]:
            return [*ids, *[NO_TOKEN] * (width - len(ids))]

        row = [NO_TOKEN, *cells(self._markers.start, len(self._markers.start) + 1)]
        for text in range(MAX_TEXTS):
            ids = budget.continuation_ids[text] if text < len(budget.continuation_ids) else ()
            row += cells(ids, MAX_TEXT_TOKENS + 1)
        row += cells((*budget.wrap_up_ids, *self._markers.end), self._script.shape[1] - len(row))
        return row

    def _cursor_of(self, budget: TokenBudget, machine: Machine) -> int:
        """Where in the slot's scripts the machine's remaining script begins."""
        left = machine.script_length
        if not left:
            return _IDLE
        if machine.closing:
            return self._close_at + len(budget.wrap_up_ids) + len(self._markers.end) - left
        if not machine.thinking:
            return 1 + len(self._markers.start) - left
        text = (machine.continuations - 1) % len(budget.continuation_ids)
        begin = self._first_text_at + text * (MAX_TEXT_TOKENS + 1)
        return begin + len(budget.continuation_ids[text]) - left


def _automata(
    markers: Markers, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The two markers as Knuth-Morris-Pratt automata, start marker first.

    Returns:
        The tokens [2, width], padded; where a mismatch falls back to
        [2, width]; the lengths [2].
    """
    both = (markers.start, markers.end)
    width = max(map(len, both))
    tokens = torch.full((2, width), NO_TOKEN - 1, dtype=torch.int64)
    fallback = torch.zeros((2, width), dtype=torch.int64)
    for which, marker in enumerate(both):
        tokens[which, : len(marker)] = torch.tensor(marker)
        for matched in range(1, len(marker)):
            fallback[which, matched] = matched_prefix(marker[1:matched], marker)
    lengths = torch.tensor([len(marker) for marker in both])
    return tokens.to(device), fallback.to(device), lengths.to(device)
