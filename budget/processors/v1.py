"""Budgets on vLLM's V1 runner, where rows are batch positions that move and swap."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from proctor.budget.machine import replay
from proctor.budget.processors.backend import Array, ArrayBackend
from proctor.budget.processors.enforcer import Enforcer, RowMasks
from proctor.budget.processors.forced_sequences import NO_TOKEN
from proctor.budget.processors.params import EngineBudget, markers_of, read
from proctor.budget.processors.penalties import BatchPenalties, RowPenalties
from proctor.budget.processors.table import TokenConstraints
from proctor.budget.processors.tokenizer_vocabulary import vocabulary_of
from proctor.budget.vocabulary import MAX_CONTINUATION_BYTES

if TYPE_CHECKING:
    from vllm.config import VllmConfig

FIRST_SLOTS = 16
"""Slots that the tables begin with, and go back to when nothing runs; they double when more are
needed. What a step costs grows with them: a lone stream would pay for a full batch."""

MAX_RECORDS = 4096
"""Records kept of requests that have left the batch and were not asked for."""


@dataclass(slots=True)
class RowState:
    """A request in the batch.

    Attributes:
        slot: its index in the tables.
        request: what it carries in its sampling parameters.
        output: vLLM's own list of its output tokens, which grows under us.
        penalties: its penalties, or None if it has none.
        seen: how many of them the table has taken.
        record: the positions among them that stand for an attempt to close.
        trying: whether the token now being sampled does.
    """

    slot: int
    request: EngineBudget
    output: list[int]
    penalties: RowPenalties | None
    seen: int
    record: list[int]
    trying: bool = False

    @property
    def attempts(self) -> list[int]:
        """Positions of attempts, the token being sampled included."""
        return [*self.record, self.seen] if self.trying else list(self.record)


@dataclass(frozen=True, slots=True)
class AssignedRows:
    """The batch between two of its changes.

    Attributes:
        rows: [held] int64, where the logits are; the rows with a budget, in ascending order.
        slots: [held] int64, on the host; the slot of each.
        penalties: those that the sampler will apply to the rows.
    """

    rows: Array
    slots: np.ndarray
    penalties: BatchPenalties

    @classmethod
    def of(cls, seats: Mapping[int, RowState], logits: ArrayBackend) -> "AssignedRows":
        """From the seats by row, in ascending order."""
        return cls(
            logits.bring(list(seats)),
            np.array([seat.slot for seat in seats.values()]),
            BatchPenalties([seat.penalties for seat in seats.values()], logits),
        )


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
        if device.type == "cpu":
            _ask_for_tiles()
        slots = vllm_config.scheduler_config.max_num_seqs
        vocabulary = vllm_config.model_config.get_vocab_size()
        self._markers = markers_of(vllm_config)
        self._known = vocabulary_of(vllm_config)
        self._most_slots = slots
        self._logits = ArrayBackend(None if device.type == "cpu" else device)
        self._enforcer = Enforcer(
            slots, self._markers, self._known, vocabulary, ArrayBackend(None), self._logits
        )
        self._seats: dict[int, RowState] = {}
        self._seated: AssignedRows | None = None
        self._slots = 0
        self._free: list[int] = []
        self._begin_small()
        self._records: OrderedDict[str, list[int]] = OrderedDict()

    def is_argmax_invariant(self) -> bool:
        """A forced token is not the argmax."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the rows: removed, added, moved, in this order."""
        if batch_update is None:
            return
        self._seated = None
        for row in batch_update.removed:
            self._leave(row)
        for row, params, prompt, output in batch_update.added:
            self._leave(row)
            request = read(params)
            if request is not None:
                self._leave_key(request.key)
                penalties = RowPenalties.of(params, prompt, output)
                self._seats[row] = self._seat(request, params, output, penalties)
        for one, other, direction in batch_update.moved:
            self._move(one, other, direction)
        self._seats = dict(sorted(self._seats.items()))
        if not self._seats and self._slots > FIRST_SLOTS:
            self._begin_small()

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Fold the tokens of the last step, then hold each row of `logits` to its budget."""
        if not self._seats:
            return logits
        self._fold()
        seated = self._seated = self._seated or AssignedRows.of(self._seats, self._logits)
        table = self._enforcer.table
        asked = table.demands(table.state, seated.slots)
        parts = _parts(asked)
        demands = TokenConstraints(*map(self._logits.move, asked))
        attempted = self._enforcer.hold(
            logits, seated.rows, seated.slots, demands, parts, seated.penalties
        )
        if parts.suppresses_close.any():
            for seat, tries in zip(self._seats.values(), attempted.tolist(), strict=True):
                seat.trying = tries
        return logits

    def take_attempts(self, key: str) -> list[int]:
        """Positions of a request's replaced attempts, among its output tokens; then forget them."""
        for seat in self._seats.values():
            if seat.request.key == key:
                return seat.attempts
        return self._records.pop(key, [])

    def check_slots(self) -> int:
        """Requests that hold a slot now.

        Raises:
            RuntimeError: if a slot is held twice, or was lost.
        """
        held = [seat.slot for seat in self._seats.values()]
        if sorted([*held, *self._free]) != list(range(self._slots)):
            raise RuntimeError(f"slots {held} are held and {self._free} are free")
        return len(held)

    def _seat(
        self,
        request: EngineBudget,
        params: SamplingParams,
        output: list[int],
        penalties: RowPenalties | None,
    ) -> RowState:
        record = [at for at in self._records.pop(request.key, []) if at < len(output)]
        if not self._free:
            self._grow()
        slot = self._free.pop()
        machine = replay(request.budget, self._markers, output, frozenset(record), self._known)
        self._enforcer.load(slot, request, params, machine)
        return RowState(slot, request, output, penalties, len(output), record)

    def _begin_small(self) -> None:
        """Drop the slots that a larger batch needed; none may be held."""
        self._slots = min(FIRST_SLOTS, self._most_slots)
        self._free = list(range(self._slots))
        self._enforcer.resize(self._slots)

    def _grow(self) -> None:
        slots = min(2 * self._slots, self._most_slots)
        self._free += range(self._slots, slots)
        self._slots = slots
        self._enforcer.resize(slots)

    def _leave(self, row: int) -> None:
        """Free a row's slot, keeping its record: it may have been preempted, not finished."""
        seat = self._seats.pop(row, None)
        if seat is None:
            return
        self._free.append(seat.slot)
        self._enforcer.table.unload(seat.slot)
        if seat.request.budget.demands_thinking:
            self._records[seat.request.key] = seat.attempts
            if len(self._records) > MAX_RECORDS:
                self._records.popitem(last=False)

    def _leave_key(self, key: str) -> None:
        """Free the row of a request that comes back while its old row still awaits a move."""
        for row, seat in self._seats.items():
            if seat.request.key == key:
                self._leave(row)
                return

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
        tokens = [NO_TOKEN] * self._slots
        attempted = [False] * self._slots
        for seat in self._seats.values():
            if len(seat.output) > seat.seen:
                tokens[seat.slot] = seat.output[seat.seen]
                if seat.trying:
                    attempted[seat.slot] = True
                    seat.record.append(seat.seen)
                    seat.trying = False
                seat.seen += 1
        self._enforcer.table.advance(np.array(tokens), np.array(attempted))


def _ask_for_tiles() -> None:
    """Have torch ask Linux for the processor's AMX tiles, where it has any.

    vLLM's attention on the CPU uses them unasked, of which its worker dies if no
    product of matrices was large enough before the first short prompt.
    """
    tiles = torch.ones(64, 64, dtype=torch.bfloat16)
    torch.mm(tiles, tiles)


def _parts(demands: TokenConstraints) -> RowMasks:
    """Exactly the rows that need it: the table is on the host."""
    bound = (demands.forced != NO_TOKEN) | demands.suppresses_close
    near = demands.max_incomplete_bytes < MAX_CONTINUATION_BYTES
    barred = demands.barred != NO_TOKEN
    return RowMasks(
        demands.may_close, near, demands.suppresses_close, bound, barred, demands.bars_eos
    )
