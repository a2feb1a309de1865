"""Budgets on vLLM's V1 runner, where rows are batch positions that move and swap."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from budget.machine import replay
from budget.processors.sampling import SamplingTable
from budget.processors.table import NO_TOKEN, BudgetTable
from budget.processors.wire import EngineBudget, markers_of, read

if TYPE_CHECKING:
    from vllm.config import VllmConfig

MAX_RECORDS = 4096
"""Records kept of requests that have left the batch and were not asked for."""


@dataclass(slots=True)
class Seat:
    """A request in the batch.

    Attributes:
        slot: its index in the tables.
        request: what it carries in its sampling parameters.
        output: vLLM's own list of its output tokens, which grows under us.
        seen: how many of them the table has taken.
    """

    slot: int
    request: EngineBudget
    output: list[int]
    seen: int


class BudgetLogitsProcessor(LogitsProcessor):
    """Enforces each request's thinking budget in the running batch."""

    @classmethod
    def validate_params(cls, params: SamplingParams) -> None:
        """Refuse a budget that is malformed or that cannot be enforced.

        Raises:
            ValueError: with the field's name.
        """
        read(params)

    def __init__(
        self, vllm_config: "VllmConfig", device: torch.device, is_pin_memory: bool
    ) -> None:
        slots = vllm_config.scheduler_config.max_num_seqs
        markers = markers_of(vllm_config)
        self._vocabulary = vllm_config.model_config.get_vocab_size()
        self._markers = markers
        self._device = device
        self._eos = torch.tensor(sorted(markers.eos), dtype=torch.int64, device=device)
        self._table = BudgetTable(slots, markers, vllm_config.model_config.max_model_len, device)
        self._sampling = SamplingTable.empty(slots, device)
        self._seats: dict[int, Seat] = {}
        self._free = list(range(slots))
        self._records: OrderedDict[str, list[int]] = OrderedDict()

    def is_argmax_invariant(self) -> bool:
        """A forced token is not the argmax."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the rows: removed, added, moved, in this order."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._leave(row)
        for row, params, _, output in batch_update.added:
            self._leave(row)
            request = read(params)
            if request is not None:
                self._seats[row] = self._seat(request, params, output)
        for one, other, direction in batch_update.moved:
            self._move(one, other, direction)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Fold the tokens of the last step, then hold each row of `logits` to its budget."""
        if not self._seats:
            return logits
        self._fold()
        rows = torch.tensor(list(self._seats), device=self._device)
        slots = torch.tensor([seat.slot for seat in self._seats.values()], device=self._device)
        self._forbid(logits, rows, slots)
        self._guard(logits, rows, slots)
        self._force(logits, rows, slots, self._table.forced)
        return logits

    def take_attempts(self, key: str) -> list[int]:
        """Positions of a request's replaced attempts, among its output tokens; then forget them."""
        for seat in self._seats.values():
            if seat.request.key == key:
                return self._table.record(seat.slot)
        return self._records.pop(key, [])

    def _seat(self, request: EngineBudget, params: SamplingParams, output: list[int]) -> Seat:
        slot = self._free.pop()
        record = [at for at in self._records.pop(request.key, []) if at < len(output)]
        machine = replay(request.budget, self._markers, output, frozenset(record))
        self._table.load(slot, request.budget, machine, record)
        self._sampling.load(slot, params, self._vocabulary, request.seed)
        return Seat(slot, request, output, len(output))

    def _leave(self, row: int) -> None:
        """Free a row's slot, keeping its record: it may have been preempted, not finished."""
        seat = self._seats.pop(row, None)
        if seat is None:
            return
        self._free.append(seat.slot)
        if seat.request.budget.demands_thinking:
            self._records[seat.request.key] = self._table.record(seat.slot)
            if len(self._records) > MAX_RECORDS:
                self._records.popitem(last=False)

    def _move(self, one: int, other: int, direction: MoveDirectionality) -> None:
        if direction is not MoveDirectionality.SWAP:
            # vLLM takes a removed row that is filled by a move off the list of removed ones.
            self._leave(other)
        first, second = self._seats.pop(one, None), self._seats.pop(other, None)
        if first is not None:
            self._seats[other] = first
        if second is not None:
            self._seats[one] = second

    def _fold(self) -> None:
        """Give the table the tokens that came since the last step: one each, or none."""
        tokens = [NO_TOKEN] * len(self._table.tokens)
        for seat in self._seats.values():
            if len(seat.output) > seat.seen:
                tokens[seat.slot] = seat.output[seat.seen]
                seat.seen += 1
        self._table.advance(torch.tensor(tokens, device=self._device))

    def _forbid(self, logits: torch.Tensor, rows: torch.Tensor, slots: torch.Tensor) -> None:
        """Mask what may not open thinking; inside it, an end of turn becomes the end marker."""
        forbidden = self._table.forbidden[slots]
        masked = (forbidden != NO_TOKEN).nonzero()[:, 0]
        logits[rows[masked], forbidden[masked]] = -torch.inf
        inside = (self._table.free & ~self._table.guarded)[slots].nonzero()[:, 0]
        rows, ends = rows[inside], self._table.end_token[slots[inside]]
        of_turn = logits[rows[:, None], self._eos].amax(dim=-1)
        logits[rows, ends] = torch.maximum(logits[rows, ends], of_turn)
        logits[rows[:, None], self._eos] = -torch.inf

    def _guard(self, logits: torch.Tensor, rows: torch.Tensor, slots: torch.Tensor) -> None:
        """Draw for rows that may not close yet; an attempt becomes a continuation."""
        self._table.attempt.zero_()
        guarded = self._table.guarded[slots].nonzero()[:, 0]
        if not len(guarded):
            return
        rows, slots = rows[guarded], slots[guarded]
        drawn = self._sampling.draw(logits[rows], slots, self._table.length[slots])
        attempt = (drawn == self._table.closes[slots]) | torch.isin(drawn, self._eos)
        self._table.attempt[slots] = attempt
        tokens = torch.where(attempt, self._table.continuation[slots], drawn)
        logits[rows] = -torch.inf
        logits[rows, tokens] = 0.0

    def _force(
        self, logits: torch.Tensor, rows: torch.Tensor, slots: torch.Tensor, forced: torch.Tensor
    ) -> None:
        tokens = forced[slots]
        which = (tokens != NO_TOKEN).nonzero()[:, 0]
        logits[rows[which]] = -torch.inf
        logits[rows[which], tokens[which]] = 0.0
