"""The logits processor of vLLM's V2 runner: state on the device, draft tokens.

A request keeps its slot while it is in the batch. With speculative decoding it has one
row per draft token and one more, and the state for each row is the one after the drafts
before it. How many drafts are accepted is known only in the next step, from vLLM's own
history of tokens on the device. Therefore only that history advances the table, and
`apply` never waits for the device.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from vllm import SamplingParams
from vllm.utils.gpu_sync_debug import gpu_sync_allowed
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.worker.gpu.sample.logits_processor import (
    LogitsContext,
    LogitsProcessor,
    LogitsProcRequestState,
)

from proctor.budget.machine import BudgetStateMachine
from proctor.budget.moves import EngineRecord, Move
from proctor.budget.outcome import EndReason
from proctor.budget.processors.attempt_log import MAX_RECORDS, AttemptLog
from proctor.budget.processors.backend import ArrayBackend
from proctor.budget.processors.drafts import DraftCounts
from proctor.budget.processors.enforcer import Enforcer, RowMasks
from proctor.budget.processors.forced_sequences import NO_TOKEN
from proctor.budget.processors.params import EngineBudget, markers_of, read
from proctor.budget.processors.sampling.confidence import (
    VERDICTS,
    ConfidenceTable,
    token_confidence,
)
from proctor.budget.processors.table import State
from proctor.budget.processors.tokenizer.vocabulary import vocabulary_of

if TYPE_CHECKING:
    from vllm.config import VllmConfig


class BudgetLogitsProcessor(LogitsProcessor):
    """Enforces each request's thinking budget in the running batch."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Reject budgets that are malformed or cannot be enforced.

        Raises:
            ValueError: if the budget is invalid; the message names the field.
        """
        read(sampling_params)

    def __init__(self, vllm_config: "VllmConfig", req_states: LogitsProcRequestState) -> None:
        """Create the processor for a worker.

        Raises:
            ValueError: if the engine has no markers, or is configured to sample in a
                way in which budgets cannot be enforced.
        """
        _check_config(vllm_config)
        slots, self._device = req_states.max_num_reqs, req_states.device
        self._requests = req_states
        arrays = ArrayBackend(self._device)
        self._enforcer = Enforcer(
            slots,
            markers_of(vllm_config),
            vocabulary_of(vllm_config),
            req_states.vocab_size,
            arrays,
            arrays,
        )
        self._max_rows = vllm_config.num_speculative_tokens + 1
        self._last_token = vllm_config.model_config.max_model_len - 1

        self._slots = torch.arange(slots, device=self._device)
        # [slots] int64: where a slot's first token under its budget is among all its tokens.
        self._start = torch.zeros_like(self._slots)
        # [max_rows, slots] bool: whether the token of a slot's row, in the slot's last step,
        # replaced an attempt.
        shape = self._max_rows, slots
        self._attempted = torch.zeros(shape, dtype=torch.bool, device=self._device)
        self._attempt_log = AttemptLog(slots, self._last_token + 1, self._device)
        # [2, 2] int64: draft tokens by whether they are thinking (1) or not, proposed and accepted.
        self._drafts = torch.zeros((2, 2), dtype=torch.int64, device=self._device)
        self._confidence = ConfidenceTable(slots, self._max_rows, self._device)
        # A copy of its verdicts on the host, and the event after which it is complete.
        self._verdicts: tuple[torch.Tensor, torch.Event | None] | None = None

        # The moves of the maxima of requests, also of some that left the batch.
        self._moves: OrderedDict[str, tuple[Move, ...]] = OrderedDict()
        # State on the host, to skip operations without waiting for the device.
        self._owners: dict[int, EngineBudget] = {}
        self._staged: dict[int, tuple[EngineBudget, SamplingParams]] = {}
        self._has_budget = np.zeros(slots, dtype=bool)
        self._resumed = np.zeros(slots, dtype=np.int64)

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Assign a slot to a request.

        The previous request's tokens are still on the device, so its attempts are saved.
        """
        self._release(req_idx)
        request = read(sampling_params)
        if request is None:
            return False
        previous = self._slot_of(request.key)
        if previous is not None:
            self._release(previous)
        self._owners[req_idx] = request
        self._staged[req_idx] = request, sampling_params
        return True

    def apply_staged_writes(self) -> None:
        """Load the added requests, whose tokens vLLM has written to the device by now."""
        for slot, (request, params) in self._staged.items():
            machine = self._rebuild(slot, request)
            if machine is None:
                del self._owners[slot]
                continue
            self._enforcer.load_sampling(slot, request, params)
            self._enforcer.table.load(slot, request.budget, machine)
            self._confidence.load(slot, request.confidence)
            self._start[slot] = self._start_of(slot, request)
            self._has_budget[slot] = True
            self._resumed[slot] = request.resumed
        self._staged.clear()

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Take the tokens of the last step, then enforce the budgets on the next ones.

        Args:
            logits: [rows, vocabulary] float32; modified in place. A request with d
                drafts has d + 1 rows.
            ctx: the mapping of rows to slots.
        """
        mapping = ctx.idx_mapping_np
        in_batch = self._has_budget[mapping]
        if not in_batch.any():
            return logits
        lengths = ctx.seq_lens_upper_bound_np[: len(mapping)]
        selected = self._select(mapping[in_batch], lengths[in_batch])
        self._advance_table(selected.slots)
        if self._confidence.watches_any:
            self._exit_early()
        table = self._enforcer.table
        state = table.state
        first, drafts = self._first_rows(ctx, selected.slots)
        attempted = self._apply_to_rows(logits, 0, first, selected, state)
        if len(logits) == len(mapping):
            return logits
        for taken in range(1, self._max_rows):
            # A request with fewer drafts repeats its last row in the same state.
            rows = first + drafts.clamp(max=taken)
            draft = torch.where(taken <= drafts, ctx.input_ids[rows].long(), NO_TOKEN)
            self._count_drafts(0, selected.slots, state, draft != NO_TOKEN)
            # A draft that differs from the forced token is rejected, and so are all after it.
            attempted &= draft != NO_TOKEN
            state = table.step(state, *self._scatter(selected.slots, draft, attempted))
            attempted = self._apply_to_rows(logits, taken, rows, selected, state)
        return logits

    @torch.inference_mode()
    def move_maximum(self, key: str, target: int | None, reason: EndReason | None) -> Move | None:
        """Move the maximum of a running request, between two steps. Waits for the device.

        Args:
            key: the request's key, see `EngineBudget`.
            target: the new maximum, or None to exit early; see `BudgetStateMachine.move_maximum`.
            reason: the end reason if it is reached.

        Returns:
            The move as it took effect; None if there was none, or the request is not running.
        """
        slot = self._slot_of(key)
        if slot is None or not self._has_budget[slot]:
            return None
        self._advance_table(self._slots[slot : slot + 1])
        return self._move_maximum(slot, target, reason)

    @torch.inference_mode()
    def take_record(self, key: str) -> EngineRecord:
        """Return what is recorded of a request.

        The record of a request that left the batch is removed.
        """
        record = self.peek_record(key)
        self._attempt_log.pop(key)
        if self._slot_of(key) is None:
            self._moves.pop(key, None)
        return record

    @torch.inference_mode()
    def peek_record(self, key: str) -> EngineRecord:
        """Return the same without removing anything: the request may go on, even if preempted."""
        slot = self._slot_of(key)
        if slot is None:
            attempts = self._attempt_log.peek(key)
        else:
            self._advance_table(self._slots[slot : slot + 1])
            attempts = self._attempt_log.read(slot)
        return EngineRecord(frozenset(attempts), self._moves.get(key, ()))

    @torch.inference_mode()
    def draft_counts(self) -> DraftCounts:
        """Return the draft tokens so far of requests with a budget; waits for the device."""
        (answer, accepted_answer), (thinking, accepted_thinking) = self._drafts.tolist()
        return DraftCounts(thinking, accepted_thinking, answer, accepted_answer)

    def _select(self, slots: np.ndarray, lengths: np.ndarray) -> "_BudgetRows":
        """Describe some slots as far as the host knows them.

        Args:
            slots: [n] int, on the host.
            lengths: [n] int, on the host; upper bounds on tokens, prompt included.
        """
        output_lengths = lengths - self._requests.prompt_len.np[slots] + self._resumed[slots]
        table = self._enforcer.table
        unknown = np.ones(len(slots), dtype=bool)
        masks = RowMasks(
            may_close=unknown,
            near_maximum=table.may_split_character(slots, output_lengths),
            suppresses_close=table.may_suppress_close(slots),
            forces=unknown,
            bars_tokens=unknown,
            bars_eos=table.may_bar_eos(slots),
        )
        on_device = async_tensor_h2d(slots.astype(np.int64), device=self._device)
        return _BudgetRows(on_device, slots, masks)

    def _apply_to_rows(
        self,
        logits: torch.Tensor,
        taken: int,
        rows: torch.Tensor,
        selected: "_BudgetRows",
        state: State,
    ) -> torch.Tensor:
        """Enforce the budgets on each request's row after `taken` drafts.

        Args:
            logits: [rows, vocabulary] float32; modified in place.
            taken: the number of drafts before the rows.
            rows: [n] int64; the row of each request.
            selected: the n requests.
            state: the state before the rows' tokens.

        Returns:
            [n] bool; whether the row's token replaces an attempt.
        """
        constraints = self._enforcer.table.constraints(state, selected.slots)
        watched = self._confidence.watched(selected.on_host)
        if watched.any():
            at = async_tensor_h2d(np.flatnonzero(watched), device=self._device)
            is_sampling = constraints.may_close | constraints.suppresses_close
            self._confidence.observe(
                token_confidence(logits[rows[at]]), selected.slots[at], is_sampling[at], taken
            )
        attempted = self._enforcer.apply(
            logits, rows, selected.on_host, constraints, selected.masks
        )
        self._attempted[taken].index_copy_(0, selected.slots, attempted)
        return attempted

    def _move_maximum(self, slot: int, target: int | None, reason: EndReason | None) -> Move | None:
        """Move the maximum of a slot that has taken all its tokens. Waits for the device."""
        owner = self._owners[slot]
        with gpu_sync_allowed():
            move = self._enforcer.table.move_maximum(slot, owner.budget, target, reason)
        if move is not None:
            self._moves[owner.key] = (*self._moves.get(owner.key, ()), move)
            self._moves.move_to_end(owner.key)
            if len(self._moves) > MAX_RECORDS:
                self._moves.popitem(last=False)
        return move

    def _exit_early(self) -> None:
        """End the thinking of requests that have become certain or lost.

        The verdicts are those of an earlier step, whose copy has reached the host by now: only a
        request that ends waits for the device.
        """
        if self._verdicts is None:
            self._copy_verdicts()
        elif self._verdicts[1] is None or self._verdicts[1].query():
            verdicts = self._verdicts[0].tolist()
            self._copy_verdicts()
            for slot in np.flatnonzero(verdicts).tolist():
                if self._confidence.watched(np.array([slot])).any():
                    self._move_maximum(slot, None, VERDICTS[verdicts[slot]])
                    self._confidence.unload(slot)

    def _copy_verdicts(self) -> None:
        on_host = self._confidence.verdicts.to("cpu", non_blocking=True, copy=True)
        event = None
        if self._device.type != "cpu":
            event = torch.Event(self._device)
            event.record()
        self._verdicts = on_host, event

    def _first_rows(
        self, ctx: LogitsContext, slots: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the first row of each of n slots, and its number of drafts, both [n] int64."""
        mapping, offset = ctx.expanded_idx_mapping.long(), ctx.expanded_local_pos.long()
        row = torch.arange(len(mapping), device=self._device)
        zeros = torch.zeros_like(self._slots)
        first = zeros.index_copy(0, mapping, row - offset)
        return first[slots], zeros.scatter_reduce(0, mapping, offset, "amax")[slots]

    def _advance_table(self, slots: torch.Tensor) -> None:
        """Advance the table by the tokens of some slots, [n] int64, since their last step."""
        requests, table = self._requests, self._enforcer.table
        start, end = self._start[slots], requests.total_len.gpu[slots]
        for row in range(self._max_rows):
            length = table.state.length[slots]
            position = start + length
            has_token = position < end
            token = requests.all_token_ids.gpu[slots, position.clamp(max=self._last_token)].long()
            attempted = has_token & self._attempted[row][slots]
            self._attempt_log.record(slots, length, attempted)
            # The last token of a step is sampled, the others are drafts that were accepted.
            self._count_drafts(1, slots, table.state, position + 1 < end)
            token = torch.where(has_token, token, NO_TOKEN)
            table.advance(*self._scatter(slots, token, attempted))
            if self._confidence.watches_any:
                self._confidence.advance(slots, has_token, row)

    def _count_drafts(
        self, kind: int, slots: torch.Tensor, state: State, is_draft: torch.Tensor
    ) -> None:
        """Count a draft token of each of n slots.

        Args:
            kind: 0 for a proposed token, 1 for an accepted one.
            slots: [n] int64.
            state: the state before the token.
            is_draft: [n] bool; the other slots have no draft.
        """
        if self._max_rows > 1:
            self._drafts[:, kind].index_add_(0, state.thinking[slots].long(), is_draft.long())

    def _scatter(
        self, slots: torch.Tensor, token: torch.Tensor, attempted: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scatter the tokens and attempts of n slots, all [n], to all slots, [slots].

        The other slots have no token.
        """
        tokens = torch.full_like(self._slots, NO_TOKEN)
        attempts = torch.zeros_like(self._slots, dtype=torch.bool)
        return tokens.index_copy(0, slots, token), attempts.index_copy(0, slots, attempted)

    def _slot_of(self, key: str) -> int | None:
        """Return the slot of a request, which may have left it; None if it has none."""
        for slot, owner in self._owners.items():
            if owner.key == key:
                return slot
        return None

    def _release(self, slot: int) -> None:
        """Release a slot and save its attempts: the request may have been preempted.

        The runner does not report requests that leave, so this happens when the slot is
        reassigned, before the new request's tokens reach the device.
        """
        owner = self._owners.pop(slot, None)
        if owner is not None and owner.budget.demands_thinking:
            self._advance_table(self._slots[slot : slot + 1])
            self._attempt_log.save(slot, owner.key)
        self._has_budget[slot] = False
        self._enforcer.table.unload(slot)
        self._confidence.unload(slot)

    def _start_of(self, slot: int, request: EngineBudget) -> int:
        """Return where a request's first token under its budget is among all its tokens."""
        return max(0, int(self._requests.prompt_len.np[slot]) - request.resumed)

    def _rebuild(self, slot: int, request: EngineBudget) -> BudgetStateMachine | None:
        """Return the state after a request's output, nonempty if it was preempted or resumed.

        The result is None if the output violates the budget.
        """
        start, end = self._start_of(slot, request), self._requests.prefill_len.np[slot]
        tokens: list[int] = []
        attempts: list[int] = []
        if end > start:
            with gpu_sync_allowed():
                tokens = self._requests.all_token_ids.gpu[slot, start:end].tolist()
                attempts = self._attempt_log.pop(request.key)
        moves = self._moves.get(request.key, request.record.moves)
        record = EngineRecord(request.record.attempts | {*attempts}, moves).until(len(tokens))
        if moves:
            self._moves[request.key] = record.moves
        self._attempt_log.load(slot, sorted(record.attempts))
        return self._enforcer.replay(request, tokens, record)


class _BudgetRows(NamedTuple):
    """The n requests in the batch that have a budget.

    Attributes:
        slots: [n] int64; the slot of each request.
        on_host: [n] int; the same, on the host.
        masks: which of them may need each operation.
    """

    slots: torch.Tensor
    on_host: np.ndarray
    masks: RowMasks


def _check_config(config: "VllmConfig") -> None:
    speculative = config.speculative_config
    if speculative is not None and speculative.rejection_sample_method == "synthetic":
        raise ValueError(
            "speculative_config.rejection_sample_method must not be 'synthetic', which accepts "
            "drafts regardless of the tokens that a budget forces"
        )
    if config.parallel_config.enable_batch_sharded_sampling:
        raise ValueError(
            "enable_batch_sharded_sampling must be off: the attempt log of a preempted request "
            "would stay with the rank that sampled it"
        )
