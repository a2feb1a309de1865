"""The logits processor of vLLM's V1 runner, where rows are batch positions that move and swap."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from proctor.budget.machine import BudgetStateMachine, DesyncError
from proctor.budget.moves import EMPTY_RECORD, EngineRecord, Move
from proctor.budget.outcome import EndReason
from proctor.budget.processors.backend import Array, ArrayBackend
from proctor.budget.processors.constraints import TokenConstraints, constraints_on
from proctor.budget.processors.enforcer import Enforcer, RowMasks, log_violation
from proctor.budget.processors.forced_sequences import NO_TOKEN
from proctor.budget.processors.params import EngineBudget, markers_of, read
from proctor.budget.processors.sampling.confidence import (
    VERDICTS,
    ConfidenceTable,
    token_confidence,
)
from proctor.budget.processors.sampling.penalties import BatchPenalties, RowPenalties
from proctor.budget.processors.tokenizer.vocabulary import vocabulary_of
from proctor.budget.vocabulary import MAX_CONTINUATION_BYTES

if TYPE_CHECKING:
    from vllm.config import VllmConfig

MIN_SLOTS = 16
"""Initial number of slots, which doubles on demand and is restored when no request runs. The cost
of the table's step grows with it."""

MAX_MACHINES = 16
"""Up to this many requests each have a reference machine, which costs less than the table's arrays,
whose cost hardly depends on the number of requests."""

MAX_RECORDS = 4096
"""Maximum number of saved records of requests that left the batch and were not collected."""


@dataclass(slots=True)
class RowState:
    """The state of a request in the batch.

    Attributes:
        slot: its slot in the tables.
        request: its budget, from the sampling parameters.
        output: its output tokens: vLLM's own list, to which the runner appends.
        penalties: its penalties; None if it has none.
        machine: its state after the processed tokens; None once its slot in the table has it.
        processed: how many of the output tokens the machine or the table has taken.
        past: what was recorded of the processed tokens, and the moves of the maximum.
        is_attempt: whether the token being sampled replaces an attempt.
    """

    slot: int
    request: EngineBudget
    output: list[int]
    penalties: RowPenalties | None
    machine: BudgetStateMachine | None
    processed: int
    past: EngineRecord
    is_attempt: bool = False

    @property
    def record(self) -> EngineRecord:
        """What is recorded of the request, the token being sampled included."""
        current = frozenset([self.position] if self.is_attempt else ())
        return self.past | EngineRecord(current)

    @property
    def position(self) -> int:
        """The position of the token being sampled, counted from the first under the budget."""
        return self.request.resumed + self.processed

    @property
    def has_new_token(self) -> bool:
        """Whether a token was sampled that was not processed."""
        return len(self.output) > self.processed and self.new_token >= 0

    @property
    def new_token(self) -> int:
        """The token that was sampled."""
        return self.output[self.processed]

    def take_token(self) -> None:
        """Count the new token as processed."""
        if self.is_attempt:
            self.past, self.is_attempt = self.record, False
        self.processed += 1


@dataclass(frozen=True, slots=True)
class AssignedRows:
    """The rows with a budget, cached until the batch changes.

    Attributes:
        rows: [rows] int64, on the logits' device; indices into the logits, ascending.
        slots: [rows] int64, on the host; the slot of each row.
        penalties: the penalties that the sampler applies to the rows.
    """

    rows: Array
    slots: np.ndarray
    penalties: BatchPenalties

    @classmethod
    def of(cls, rows: Mapping[int, RowState], logits: ArrayBackend) -> "AssignedRows":
        """Collect the rows of a mapping in ascending order."""
        return cls(
            logits.as_int64(list(rows)),
            np.array([state.slot for state in rows.values()]),
            BatchPenalties([state.penalties for state in rows.values()], logits),
        )


@dataclass(frozen=True, slots=True)
class StepConstraints:
    """What a step has to enforce.

    Attributes:
        constraints: the constraints on each row, on the logits' device.
        masks: which rows may need each operation.
        rows: the constraints as `constraints_on` returned them, if they are from machines.
    """

    constraints: TokenConstraints
    masks: RowMasks
    rows: Sequence[tuple[int, ...]] = ()

    @classmethod
    def of(
        cls,
        on_host: TokenConstraints,
        logits: ArrayBackend,
        rows: Sequence[tuple[int, ...]] = (),
    ) -> "StepConstraints":
        """Move constraints to the logits' device."""
        constraints = TokenConstraints(*map(logits.to_device, on_host))
        return cls(constraints, _masks(on_host), rows)


class BudgetLogitsProcessor(LogitsProcessor):
    """Enforces each request's thinking budget in the running batch."""

    @classmethod
    def validate_params(cls, params: SamplingParams) -> None:
        """Reject budgets that are malformed or cannot be enforced.

        Raises:
            ValueError: if the budget is invalid; the message names the field.
        """
        read(params)

    def __init__(
        self, vllm_config: "VllmConfig", device: torch.device, is_pin_memory: bool
    ) -> None:
        if device.type == "cpu":
            _request_amx_permission()
        slots = vllm_config.scheduler_config.max_num_seqs
        columns = vllm_config.model_config.get_vocab_size()
        self._max_slots = slots
        self._device = device
        self._logits = ArrayBackend(None if device.type == "cpu" else device)
        self._enforcer = Enforcer(
            slots,
            markers_of(vllm_config),
            vocabulary_of(vllm_config),
            columns,
            ArrayBackend(None),
            self._logits,
        )
        self._confidence = ConfidenceTable(slots, 1, device)
        self._rows: dict[int, RowState] = {}
        self._assigned: AssignedRows | None = None
        self._step: StepConstraints | None = None
        self._slots = 0
        self._free: list[int] = []
        self._shrink()
        self._saved: OrderedDict[str, EngineRecord] = OrderedDict()

    def is_argmax_invariant(self) -> bool:
        """Return False, because a forced token need not be the argmax."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Apply the batch's changes in vLLM's order: removed, added, moved."""
        if batch_update is None:
            return
        self._assigned = None
        for row in batch_update.removed:
            self._remove(row)
        for row, params, prompt, output in batch_update.added:
            self._remove(row)
            request = read(params)
            if request is not None:
                self._remove_key(request.key)
                state = self._assign(request, params, prompt, output)
                if state is not None:
                    self._rows[row] = state
        for one, other, direction in batch_update.moved:
            self._move(one, other, direction)
        self._rows = dict(sorted(self._rows.items()))
        if self._uses_table or len(self._rows) > MAX_MACHINES:
            self._load_table()
        if not self._rows and self._slots > MIN_SLOTS:
            self._shrink()

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Take the tokens of the last step, then enforce the budgets on the next ones.

        Args:
            logits: [batch, vocabulary] float32; modified in place.
        """
        self._advance()
        if not self._rows:
            return logits
        if self._confidence.watches_any:
            self._exit_early()
        assigned = self._assigned = self._assigned or AssignedRows.of(self._rows, self._logits)
        step = self._step = self._step_constraints(assigned.slots)
        if self._confidence.watches_any:
            self._observe(logits, assigned, step.masks)
        attempted = self._enforcer.apply(
            logits,
            assigned.rows,
            assigned.slots,
            step.constraints,
            step.masks,
            assigned.penalties,
        )
        if step.masks.suppresses_close.any():
            for state, is_attempt in zip(self._rows.values(), attempted.tolist(), strict=True):
                state.is_attempt = is_attempt
        return logits

    def move_maximum(self, key: str, target: int | None, reason: EndReason | None) -> Move | None:
        """Move the maximum of a running request, between two steps.

        Args:
            key: the request's key, see `EngineBudget`.
            target: the new maximum, or None to exit early; see `BudgetStateMachine.move_maximum`.
            reason: the end reason if it is reached.

        Returns:
            The move as it took effect; None if there was none, or the request is not running.
        """
        self._advance()
        for state in self._rows.values():
            if state.request.key == key:
                return self._move_maximum(state, target, reason)
        return None

    def take_record(self, key: str) -> EngineRecord:
        """Return what is recorded of a request.

        The record of a request that left the batch is removed.
        """
        record = self.peek_record(key)
        self._saved.pop(key, None)
        return record

    def peek_record(self, key: str) -> EngineRecord:
        """Return the same without removing anything: the request may go on, even if preempted."""
        for state in self._rows.values():
            if state.request.key == key:
                return state.record
        return self._saved.get(key, EMPTY_RECORD)

    def check_slots(self) -> int:
        """Return the number of slots in use.

        Raises:
            RuntimeError: if a slot is used twice or was lost.
        """
        slots_in_use = [state.slot for state in self._rows.values()]
        if sorted([*slots_in_use, *self._free]) != list(range(self._slots)):
            raise RuntimeError(
                f"inconsistent slots: {slots_in_use} are in use and {self._free} are free, of "
                f"{self._slots}"
            )
        return len(slots_in_use)

    @property
    def _uses_table(self) -> bool:
        """Whether the table holds the states of all requests; otherwise, their machines do."""
        return any(state.machine is None for state in self._rows.values())

    def _assign(
        self,
        request: EngineBudget,
        params: SamplingParams,
        prompt: list[int] | None,
        output: list[int],
    ) -> RowState | None:
        """Assign a slot to a request; None if its output violates its budget."""
        resumed = (prompt or [])[-request.resumed :] if request.resumed else []
        tokens = [*resumed, *output]
        saved = self._saved.pop(request.key, request.record)
        past = saved.until(len(tokens))
        machine = self._enforcer.replay(request, tokens, past)
        if machine is None:
            return None
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._enforcer.load_sampling(slot, request, params)
        self._confidence.load(slot, request.confidence)
        penalties = RowPenalties.of(params, prompt, output)
        return RowState(slot, request, output, penalties, machine, len(output), past)

    def _move_maximum(
        self, state: RowState, target: int | None, reason: EndReason | None
    ) -> Move | None:
        if state.machine is not None:
            move = state.machine.move_maximum(target, reason)
        else:
            table, budget = self._enforcer.table, state.request.budget
            move = table.move_maximum(state.slot, budget, target, reason)
        if move is not None:
            state.past |= EngineRecord(moves=(move,))
        return move

    def _observe(self, logits: torch.Tensor, assigned: AssignedRows, masks: RowMasks) -> None:
        """Note the confidence of the rows that may end by it."""
        watched = self._confidence.watched(assigned.slots)
        is_sampling = masks.may_close | masks.suppresses_close
        at = torch.as_tensor(np.flatnonzero(watched), device=logits.device)
        self._confidence.observe(
            token_confidence(logits[torch.as_tensor(assigned.rows, device=logits.device)[at]]),
            torch.as_tensor(assigned.slots[watched], device=logits.device),
            torch.as_tensor(is_sampling[watched], device=logits.device),
        )

    def _exit_early(self) -> None:
        """End the thinking of rows that have become certain or lost."""
        for state in self._rows.values():
            if not self._confidence.watched(np.array([state.slot])).any():
                continue
            reason = VERDICTS[int(self._confidence.verdicts[state.slot])]
            if reason is not None:
                self._move_maximum(state, None, reason)
                self._confidence.unload(state.slot)

    def _shrink(self) -> None:
        """Reset to the initial number of slots; none may be in use."""
        self._slots = min(MIN_SLOTS, self._max_slots)
        self._free = list(range(self._slots))
        self._enforcer.resize(self._slots)

    def _grow(self) -> None:
        slots = min(2 * self._slots, self._max_slots)
        self._free += range(self._slots, slots)
        self._slots = slots
        self._enforcer.resize(slots)

    def _remove(self, row: int) -> None:
        """Free a row's slot and save its record: the request may have been preempted."""
        state = self._rows.pop(row, None)
        if state is None:
            return
        self._free.append(state.slot)
        self._enforcer.table.unload(state.slot)
        self._confidence.unload(state.slot)
        if state.record != EMPTY_RECORD:
            self._saved[state.request.key] = state.record
            if len(self._saved) > MAX_RECORDS:
                self._saved.popitem(last=False)

    def _remove_key(self, key: str) -> None:
        """Free the old row of a request that is added again before that row is moved over."""
        for row, state in self._rows.items():
            if state.request.key == key:
                self._remove(row)
                return

    def _move(self, one: int, other: int, direction: MoveDirectionality) -> None:
        if direction is not MoveDirectionality.SWAP:
            # vLLM does not list a row as removed if a move fills it.
            self._remove(other)
        first, second = self._rows.pop(one, None), self._rows.pop(other, None)
        if first is not None:
            self._rows[other] = first
        if second is not None:
            self._rows[one] = second

    def _load_table(self) -> None:
        """Load the states into the table, where they stay until no request with a budget runs."""
        for state in self._rows.values():
            if state.machine is not None:
                self._enforcer.table.load(state.slot, state.request.budget, state.machine)
                state.machine = None

    def _step_constraints(self, slots: np.ndarray) -> StepConstraints:
        """Return what to enforce on each row, whose `slots` are [rows] int64."""
        machines = [state.machine for state in self._rows.values() if state.machine is not None]
        if not machines:
            table = self._enforcer.table
            return StepConstraints.of(table.constraints(table.state, slots), self._logits)
        rows = [constraints_on(machine) for machine in machines]
        if self._step is not None and self._step.rows == rows:
            return self._step
        return StepConstraints.of(TokenConstraints.of(rows), self._logits, rows)

    def _advance(self) -> None:
        """Take the tokens since the last step: at most one per request."""
        states = [state for state in self._rows.values() if state.has_new_token]
        if self._confidence.watches_any and states:
            slots = torch.tensor([state.slot for state in states], device=self._device)
            self._confidence.advance(slots, torch.ones_like(slots, dtype=torch.bool))
        if self._uses_table:
            self._advance_table(states)
        else:
            self._advance_machines()
        for state in states:
            state.take_token()

    def _advance_machines(self) -> None:
        for row, state in list(self._rows.items()):
            if state.machine is None or not state.has_new_token:
                continue
            try:
                state.machine.advance(state.new_token, state.is_attempt)
            except DesyncError:
                log_violation(state.request.key)
                self._remove(row)
                self._assigned = None

    def _advance_table(self, states: list[RowState]) -> None:
        tokens = [NO_TOKEN] * self._slots
        attempted = [False] * self._slots
        for state in states:
            tokens[state.slot] = state.new_token
            attempted[state.slot] = state.is_attempt
        self._enforcer.table.advance(np.array(tokens), np.array(attempted))


def _request_amx_permission() -> None:
    """Make torch request permission for the CPU's AMX tiles from Linux, if it has any.

    vLLM's CPU attention uses the tiles without requesting permission, and its worker
    crashes unless a large enough matrix product ran before the first short prompt.
    """
    matrix = torch.ones(64, 64, dtype=torch.bfloat16)
    torch.mm(matrix, matrix)


def _masks(constraints: TokenConstraints) -> RowMasks:
    """Return exact masks, since the table is on the host."""
    forces = (constraints.forced != NO_TOKEN) | constraints.suppresses_close
    near = constraints.max_incomplete_bytes < MAX_CONTINUATION_BYTES
    barred = constraints.barred != NO_TOKEN
    return RowMasks(
        constraints.may_close,
        near,
        constraints.suppresses_close,
        forces,
        barred,
        constraints.bars_eos,
    )
