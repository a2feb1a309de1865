"""Budgets on vLLM's V2 runner: state on the device, rows that are not requests, draft tokens.

A request keeps its slot while it is in the batch. Under speculative decoding it
has one row per draft token and one more, and the state before each of its rows
is what follows from the drafts before it; how many of them are accepted shows
only in the next step, in vLLM's own history of tokens on the device. So the
history alone moves the table on, and `apply` never waits for the device.
"""

import logging
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

from proctor.budget.machine import BudgetStateMachine, DesyncError, replay
from proctor.budget.processors.attempt_log import AttemptLog
from proctor.budget.processors.backend import ArrayBackend
from proctor.budget.processors.enforcer import Enforcer, RowMasks
from proctor.budget.processors.forced_sequences import NO_TOKEN
from proctor.budget.processors.params import EngineBudget, markers_of, read
from proctor.budget.processors.table import State
from proctor.budget.processors.tokenizer_vocabulary import vocabulary_of

if TYPE_CHECKING:
    from vllm.config import VllmConfig

logger = logging.getLogger(__name__)


class BudgetLogitsProcessor(LogitsProcessor):
    """Enforces each request's thinking budget in the running batch."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse a budget that is malformed or that cannot be enforced.

        Raises:
            ValueError: with the field's name.
        """
        read(sampling_params)

    def __init__(self, vllm_config: "VllmConfig", req_states: LogitsProcRequestState) -> None:
        """As vLLM makes it.

        Raises:
            ValueError: if the engine has no markers, or samples in a way that
                could not be held to a budget.
        """
        _refuse(vllm_config)
        slots, self._device = req_states.max_num_reqs, req_states.device
        self._requests = req_states
        self._markers = markers_of(vllm_config)
        self._known = vocabulary_of(vllm_config)
        arrays = ArrayBackend(self._device)
        self._enforcer = Enforcer(
            slots, self._markers, self._known, req_states.vocab_size, arrays, arrays
        )
        self._most_rows = vllm_config.num_speculative_tokens + 1
        self._last_token = vllm_config.model_config.max_model_len - 1

        self._slots = torch.arange(slots, device=self._device)
        self._prompt = torch.zeros_like(self._slots)
        # Whether the token of a slot's row, in the last step that it was in, stands for an attempt.
        shape = self._most_rows, slots
        self._attempted = torch.zeros(shape, dtype=torch.bool, device=self._device)
        self._records = AttemptLog(slots, self._last_token + 1, self._device)

        # What the host knows of the slots, to leave out work without waiting for the device.
        self._owners: dict[int, EngineBudget] = {}
        self._coming: dict[int, tuple[EngineBudget, SamplingParams]] = {}
        self._held = np.zeros(slots, dtype=bool)

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Give the slot to a request; the tokens of the one before it are still on the device."""
        self._leave(req_idx)
        request = read(sampling_params)
        if request is None:
            return False
        for slot, owner in self._owners.items():
            if owner.key == request.key:
                self._leave(slot)
                break
        self._owners[req_idx] = request
        self._coming[req_idx] = request, sampling_params
        return True

    def apply_staged_writes(self) -> None:
        """Load the requests that were added; vLLM has put their tokens on the device by now."""
        for slot, (request, params) in self._coming.items():
            machine = self._rebuild(slot, request)
            if machine is None:
                del self._owners[slot]
                continue
            self._enforcer.load(slot, request, params, machine)
            self._prompt[slot] = int(self._requests.prompt_len.np[slot])
            self._held[slot] = True
        self._coming.clear()

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Fold the tokens of the last step, then hold each row of `logits` to its budget."""
        mapping = ctx.idx_mapping_np
        here = self._held[mapping]
        if not here.any():
            return logits
        held = self._who(mapping[here], ctx.seq_lens_upper_bound_np[: len(mapping)][here])
        self._fold(held.slots)
        table = self._enforcer.table
        state = table.state
        first, drafts = self._rows(ctx, held.slots)
        attempted = self._hold(logits, 0, first, held, state)
        if len(logits) == len(mapping):
            return logits
        for taken in range(1, self._most_rows):
            # A request with fewer drafts meets its last row again, in the same state.
            rows = first + drafts.clamp(max=taken)
            draft = torch.where(taken <= drafts, ctx.input_ids[rows].long(), NO_TOKEN)
            # A draft that differs from the token made certain is rejected, and all after it.
            attempted &= draft != NO_TOKEN
            state = table.step(state, *self._spread(held.slots, draft, attempted))
            attempted = self._hold(logits, taken, rows, held, state)
        return logits

    @torch.inference_mode()
    def take_attempts(self, key: str) -> list[int]:
        """Positions of a request's replaced attempts, among its output tokens."""
        for slot, owner in self._owners.items():
            if owner.key == key:
                self._fold(self._slots[slot : slot + 1])
                return self._records.read(slot)
        return self._records.take(key)

    def _who(self, slots: np.ndarray, length: np.ndarray) -> "_Held":
        """What the host knows of some slots; `length` is at most their tokens, prompt included."""
        output = length - self._requests.prompt_len.np[slots]
        table = self._enforcer.table
        everywhere = np.ones(len(slots), dtype=bool)
        near, suppresses_close = table.may_split(slots, output), table.may_guard(slots)
        return _Held(
            async_tensor_h2d(slots.astype(np.int64), device=self._device),
            slots,
            RowMasks(
                everywhere, near, suppresses_close, everywhere, everywhere, table.may_bar(slots)
            ),
        )

    def _hold(
        self, logits: torch.Tensor, taken: int, rows: torch.Tensor, held: "_Held", state: State
    ) -> torch.Tensor:
        """Hold each request's row after `taken` drafts; [held] bool: which were attempts."""
        demands = self._enforcer.table.demands(state, held.slots)
        attempted = self._enforcer.hold(logits, rows, held.on_host, demands, held.parts)
        self._attempted[taken].index_copy_(0, held.slots, attempted)
        return attempted

    def _rows(self, ctx: LogitsContext, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[held] int64 each: the first row of each request, and how many drafts follow it."""
        mapping, offset = ctx.expanded_idx_mapping.long(), ctx.expanded_local_pos.long()
        row = torch.arange(len(mapping), device=self._device)
        nothing = torch.zeros_like(self._slots)
        first = nothing.index_copy(0, mapping, row - offset)
        return first[slots], nothing.scatter_reduce(0, mapping, offset, "amax")[slots]

    def _fold(self, slots: torch.Tensor) -> None:
        """Give the table the tokens that these slots got since the last step."""
        requests, table = self._requests, self._enforcer.table
        begin, end = self._prompt[slots], requests.total_len.gpu[slots]
        for row in range(self._most_rows):
            length = table.state.length[slots]
            at = begin + length
            came = at < end
            token = requests.all_token_ids.gpu[slots, at.clamp(max=self._last_token)].long()
            attempted = came & self._attempted[row][slots]
            self._records.note(slots, length, attempted)
            token = torch.where(came, token, NO_TOKEN)
            table.advance(*self._spread(slots, token, attempted))

    def _spread(
        self, slots: torch.Tensor, token: torch.Tensor, attempted: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """From [held] to [slots], with no token for the others."""
        tokens = torch.full_like(self._slots, NO_TOKEN)
        attempts = torch.zeros_like(self._slots, dtype=torch.bool)
        return tokens.index_copy(0, slots, token), attempts.index_copy(0, slots, attempted)

    def _leave(self, slot: int) -> None:
        """Part with a slot's owner, keeping its record: it may have been preempted, not finished.

        The runner tells of no request that leaves, so this comes when its slot
        is given away, before the new owner's tokens reach the device.
        """
        owner = self._owners.pop(slot, None)
        if owner is not None and owner.budget.demands_thinking:
            self._fold(self._slots[slot : slot + 1])
            self._records.park(slot, owner.key)
        self._held[slot] = False
        self._enforcer.table.unload(slot)

    def _rebuild(self, slot: int, request: EngineBudget) -> BudgetStateMachine | None:
        """The machine that has taken the request's output so far, if it was preempted."""
        begin, end = self._requests.prompt_len.np[slot], self._requests.prefill_len.np[slot]
        record: list[int] = []
        tokens: list[int] = []
        if end > begin:
            with gpu_sync_allowed():
                tokens = self._requests.all_token_ids.gpu[slot, begin:end].tolist()
                record = [at for at in self._records.take(request.key) if at < len(tokens)]
        self._records.load(slot, record)
        try:
            return replay(request.budget, self._markers, tokens, frozenset(record), self._known)
        except DesyncError:
            # The gateway, which folds the same tokens, will say so to the client.
            logger.exception(
                "request %s has left its budget, which is no longer enforced", request.key
            )
            return None


class _Held(NamedTuple):
    """The requests in the batch that have a budget.

    Attributes:
        slots: [held] int64; the slot of each.
        on_host: the same, on the host.
        parts: what the host knows that they need.
    """

    slots: torch.Tensor
    on_host: np.ndarray
    parts: RowMasks


def _refuse(config: "VllmConfig") -> None:
    speculative = config.speculative_config
    if speculative is not None and speculative.rejection_sample_method == "synthetic":
        raise ValueError(
            "rejection_sample_method synthetic accepts drafts whatever a budget forces"
        )
    if config.parallel_config.enable_batch_sharded_sampling:
        raise ValueError(
            "enable_batch_sharded_sampling would leave the record of a preempted request with "
            "the rank that sampled it"
        )
