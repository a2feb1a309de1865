"""Applies budgets to logits, on either of vLLM's runners.

Nothing here waits for the device. Of a row's logits only the affected columns are
read or written; a row is read in full only under a minimum.

An attempt to close the thinking below its minimum is replaced by a continuation, which
is the budget forcing of s1 (arXiv 2501.19393) without a second request: the token is
drawn as the sampler would draw it, and if it is an end marker or an end of turn, the
continuation's first token is forced in its place.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from proctor.budget.machine import BudgetStateMachine, DesyncError, replay
from proctor.budget.matcher import matcher_of
from proctor.budget.moves import EngineRecord
from proctor.budget.processors.backend import Array, ArrayBackend
from proctor.budget.processors.constraints import TokenConstraints
from proctor.budget.processors.forced_sequences import NO_TOKEN
from proctor.budget.processors.marker_matcher import barred_table, closing_table, closing_tokens
from proctor.budget.processors.sampling.host import draw
from proctor.budget.processors.sampling.penalties import BatchPenalties
from proctor.budget.processors.sampling.screening import screen
from proctor.budget.processors.sampling.table import SamplingTable
from proctor.budget.processors.table import BudgetTable
from proctor.budget.processors.vocabulary_arrays import incomplete_tokens

if TYPE_CHECKING:
    from vllm import SamplingParams

    from proctor.budget.markers import Markers
    from proctor.budget.processors.params import EngineBudget
    from proctor.budget.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

INFINITE = float("inf")
CERTAIN = 1e9
"""A logit that makes a token certain, as in vLLM's own forcing: one write per row, where masking
all other columns would take a pass over the vocabulary."""


@dataclass(frozen=True, slots=True)
class RowMasks:
    """Which rows may need each operation; each mask is [rows] bool, on the host.

    A mask may include rows that do not need the operation: it only saves work.

    Attributes:
        may_close: may close their thinking.
        near_maximum: are close to their maximum.
        suppresses_close: have attempts to close replaced by continuations.
        forces: have a token forced.
        bars_tokens: have tokens masked that would open a block.
        bars_eos: have end-of-turn tokens masked.
    """

    may_close: np.ndarray
    near_maximum: np.ndarray
    suppresses_close: np.ndarray
    forces: np.ndarray
    bars_tokens: np.ndarray
    bars_eos: np.ndarray


class _Candidates(NamedTuple):
    """The n rows whose next token may be an attempt to close that has to be replaced.

    Attributes:
        rows: [n] int64; the indices of the rows in the logits.
        slots: [n] int64, on the host.
        states: [n] int64; the states of the marker matcher.
        positions: [n] int64; the number of tokens generated before.
        continuation: [n] int64; the token that replaces an attempt.
        penalties: the penalties of the rows.
    """

    rows: Array
    slots: np.ndarray
    states: Array
    positions: Array
    continuation: Array
    penalties: BatchPenalties


class Enforcer:
    """Enforces the budgets of its table on rows of logits.

    Attributes:
        table: the budgets and the states of their requests.
    """

    def __init__(
        self,
        slots: int,
        markers: "Markers",
        vocabulary: "Vocabulary",
        columns: int,
        table: ArrayBackend,
        logits: ArrayBackend,
    ) -> None:
        """Create an enforcer for a batch.

        Args:
            slots: the maximum number of requests in the batch.
            markers: the model's thinking markers.
            vocabulary: the texts of the tokens.
            columns: the size of the model's vocabulary: the columns of the logits.
            table: the backend of the table's arrays.
            logits: the backend of the logits.
        """
        self._markers = markers
        self._vocabulary = vocabulary
        self.table = BudgetTable(slots, markers, table, vocabulary)
        self._arrays = logits
        self._xp = logits.xp
        incomplete, incomplete_bytes = incomplete_tokens(vocabulary)
        self._incomplete = logits.as_int64(incomplete)
        self._incomplete_bytes = logits.as_int64(incomplete_bytes)
        self._sampling = SamplingTable(slots, columns)
        self._eos = logits.as_int64(sorted(markers.eos))
        matcher = matcher_of(markers, vocabulary)
        self._closing = closing_tokens(matcher, markers.eos)
        self._closes = logits.to_device(closing_table(self._closing, columns))
        self._barred = logits.as_int64(barred_table(matcher))
        completions = map(matcher.completion, range(matcher.inside, matcher.inert))
        end_tokens = {token for completion in completions for token in completion}
        self._closing_columns = sorted(end_tokens | markers.eos)
        self._no_penalties = BatchPenalties((), logits)

    def replay(
        self, request: "EngineBudget", tokens: Iterable[int], record: EngineRecord
    ) -> BudgetStateMachine | None:
        """Return the state after a request's output; None if the output violates its budget.

        Args:
            request: the request's budget.
            tokens: its output, empty unless it was preempted.
            record: what was recorded of it.
        """
        try:
            return replay(
                request.budget,
                self._markers,
                tokens,
                record.attempts,
                self._vocabulary,
                record.moves,
            )
        except DesyncError:
            log_violation(request.key)
            return None

    def load_sampling(self, slot: int, request: "EngineBudget", params: "SamplingParams") -> None:
        """Load how the tokens of a request in a slot are sampled."""
        self._sampling.load(slot, params, request.seed)

    def resize(self, slots: int) -> None:
        """Change the number of slots; the contents of slots in both sizes are kept."""
        self.table = self.table.resized(slots)

    def apply(
        self,
        logits: torch.Tensor,
        rows: Array,
        slots: np.ndarray,
        constraints: TokenConstraints,
        masks: RowMasks,
        penalties: BatchPenalties | None = None,
    ) -> Array:
        """Mask, draw and force tokens in place.

        A token that is masked already, for example by a grammar, stays masked: the
        row is then left to the sampler, and its token will violate the budget.

        Args:
            logits: [_, columns] float32.
            rows: [rows] int64; the indices of the rows in `logits`, ascending.
            slots: [rows] int64, on the host; the slot of each row.
            constraints: the constraints on each row, on the logits' device.
            masks: which rows may need each operation.
            penalties: the penalties that the sampler applies to these rows later, if any.

        Returns:
            [rows] bool; whether the row's token replaces an attempt to close.
        """
        xp = self._xp
        cells = self._arrays.as_array(logits)
        penalties = penalties or self._no_penalties
        closing = self._index(masks.may_close)
        if closing is not None and len(self._eos):
            selected = penalties.select(masks.may_close)
            with selected.applied(cells, rows[closing], self._closing_columns):
                self._replace_eos(
                    cells, rows[closing], constraints.end[closing], constraints.may_close[closing]
                )
        answering = self._index(masks.bars_eos)
        if answering is not None and len(self._eos):
            self._mask_eos(cells, rows[answering], constraints.bars_eos[answering])
        # Before masking incomplete characters: a continuation must be able to replace an attempt
        # even if its first token is an incomplete character.
        guarded = self._index(masks.suppresses_close)
        if guarded is not None:
            continuable = self._is_continuation_unmasked(cells, rows, constraints, guarded)
        near = self._index(masks.near_maximum)
        if near is not None:
            self._mask_incomplete(
                cells,
                rows[near],
                constraints.incomplete_bytes[near],
                constraints.max_incomplete_bytes[near],
            )
        tokens, attempted = constraints.forced, xp.zeros_like(constraints.suppresses_close)
        overrides_mask = attempted
        if guarded is not None:
            candidates = _Candidates(
                rows[guarded],
                slots[masks.suppresses_close],
                constraints.matcher_state[guarded],
                constraints.length[guarded],
                constraints.continuation[guarded],
                penalties.select(masks.suppresses_close),
            )
            replace = self._screen if self._arrays.on_host else self._draw
            drawn, attempt = replace(logits, candidates)
            applies = constraints.suppresses_close[guarded]
            tokens = xp.asarray(tokens, copy=True)
            overrides_mask = xp.asarray(overrides_mask, copy=True)
            tokens[guarded] = xp.where(applies, drawn, tokens[guarded])
            attempted[guarded] = attempt & applies
            overrides_mask[guarded] = attempt & applies & continuable
        forced = self._index(masks.forces)
        if forced is not None:
            done = self._force(cells, rows[forced], tokens[forced], overrides_mask[forced])
            attempted[forced] = attempted[forced] & done
        barred = self._index(masks.bars_tokens)
        if barred is not None:
            self._mask_barred(cells, rows[barred], constraints.barred[barred])
        return attempted

    def _index(self, mask: np.ndarray) -> slice | Array | None:
        """Return an index of the rows that a mask, [rows] bool, selects; None if it is empty."""
        if mask.all():
            return slice(None)
        if not mask.any():
            return None
        return self._arrays.to_device(np.flatnonzero(mask))

    def _screen(self, logits: torch.Tensor, candidates: "_Candidates") -> tuple[Array, Array]:
        """Replace attempts to close by continuations, and draw only where that is necessary.

        Args:
            logits: [_, columns] float32, on the host; closing tokens are masked in place where
                the sampler must not draw them.
            candidates: the n rows.

        Returns:
            The tokens, [n] int64, NO_TOKEN where the sampler draws; and whether they replace an
            attempt, [n] bool.
        """
        rows, slots, states, positions, continuation, penalties = candidates
        cells, closing = logits.numpy(), self._closing[states]
        sampling = self._sampling.rows(slots, positions)
        attempt, masked, undecided = screen(cells, rows, closing, sampling)
        # The bounds hold for logits that the sampler does not change.
        undecided = undecided | penalties.are_penalized(len(rows))
        masked = np.flatnonzero(masked & ~undecided)
        columns = np.where(closing < 0, closing[:, :1], closing)[masked]
        cells[rows[masked, None], columns] = -INFINITE
        tokens = np.where(attempt, continuation, NO_TOKEN)
        for at, row in self._penalized(logits, candidates, undecided):
            token = draw(row, *sampling.at(at), self._sampling.noise(slots[at], positions[at]))
            attempt[at] = token in closing[at]
            tokens[at] = continuation[at] if attempt[at] else token
        return tokens, attempt

    def _penalized(
        self, logits: torch.Tensor, candidates: "_Candidates", mask: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the candidates, [n] bool, that a mask selects, and their logits with penalties."""
        indices = np.flatnonzero(mask)
        penalties = candidates.penalties.select(mask)
        are_penalized = penalties.are_penalized(len(indices))
        if are_penalized.any():
            rows = penalties.apply(logits[torch.as_tensor(candidates.rows[indices])]).numpy()
        for number, at in enumerate(indices.tolist()):
            if are_penalized[number]:
                yield at, rows[number]
            else:
                yield at, logits[candidates.rows[at]].numpy()

    def _draw(self, logits: torch.Tensor, candidates: "_Candidates") -> tuple[Array, Array]:
        """Draw the tokens of n rows, and replace attempts to close by continuations.

        Args:
            logits: [_, columns] float32.
            candidates: the rows.

        Returns:
            The tokens, [n] int64, and whether they replace an attempt, [n] bool.
        """
        rows, slots, states, positions, continuation, penalties = candidates
        selects_all = len(slots) == len(logits)
        selected = logits if selects_all else logits[torch.as_tensor(rows)]
        drawn = self._sampling.draw(penalties.apply(selected), slots, torch.as_tensor(positions))
        tokens = self._arrays.as_array(drawn)
        attempt = self._closes[states, tokens]
        return self._xp.where(attempt, continuation, tokens), attempt

    def _replace_eos(self, cells: Array, rows: Array, ends: Array, applies: Array) -> None:
        """Move the logits of end-of-turn tokens to the end marker, where it is not masked.

        Args:
            cells: [_, columns] float32, the logits.
            rows: [n] int64.
            ends: [n] int64; the end marker's next token.
            applies: [n] bool; the other rows are left as they are.
        """
        eos_cells = rows, self._eos[:, None]
        end, eos = cells[rows, ends], cells[eos_cells]
        applies = applies & (end > -INFINITE)
        maximum = self._xp.maximum(end, self._xp.max(eos, axis=0))
        cells[rows, ends] = self._xp.where(applies, maximum, end)
        cells[eos_cells] = self._xp.where(applies, -INFINITE, eos)

    def _mask_eos(self, cells: Array, rows: Array, applies: Array) -> None:
        """Mask the end-of-turn tokens of rows, [n] int64, where `applies`, [n] bool, holds."""
        eos_cells = rows, self._eos[:, None]
        cells[eos_cells] = self._xp.where(applies, -INFINITE, cells[eos_cells])

    def _mask_incomplete(
        self, cells: Array, rows: Array, incomplete_bytes: Array, max_incomplete_bytes: Array
    ) -> None:
        """Mask tokens whose last character could not be completed before the maximum.

        Args:
            cells: [_, columns] float32, the logits.
            rows: [n] int64.
            incomplete_bytes: [n] int64; bytes missing from the last character.
            max_incomplete_bytes: [n] int64; the maximum of bytes missing after the token.
        """
        incomplete_cells = rows[:, None], self._incomplete
        cut = self._incomplete_bytes[incomplete_bytes] > max_incomplete_bytes[:, None]
        cells[incomplete_cells] = self._xp.where(cut, -INFINITE, cells[incomplete_cells])

    def _is_continuation_unmasked(
        self, cells: Array, rows: Array, constraints: TokenConstraints, index: slice | Array
    ) -> Array:
        """Return, [n] bool, whether the continuation's first token is not masked in each row."""
        tokens = constraints.continuation[index]
        logits = cells[rows[index], self._xp.where(tokens == NO_TOKEN, 0, tokens)]
        return logits > -INFINITE

    def _force(self, cells: Array, rows: Array, tokens: Array, overrides_mask: Array) -> Array:
        """Make tokens certain.

        Args:
            cells: [_, columns] float32, the logits.
            rows: [n] int64.
            tokens: [n] int64; the tokens, or NO_TOKEN.
            overrides_mask: [n] bool; whether a token is forced although it is masked.

        Returns:
            [n] bool; whether a token was made certain.
        """
        has_token = tokens != NO_TOKEN
        token_cells = rows, self._xp.where(has_token, tokens, 0)
        logit = cells[token_cells]
        applies = has_token & ((logit > -INFINITE) | overrides_mask)
        cells[token_cells] = self._xp.where(applies, CERTAIN, logit)
        return applies

    def _mask_barred(self, cells: Array, rows: Array, states: Array) -> None:
        """Mask the tokens that would open a thinking block.

        Args:
            cells: [_, columns] float32, the logits.
            rows: [n] int64.
            states: [n] int64; the matcher's state, or NO_TOKEN to mask nothing.
        """
        applies = states != NO_TOKEN
        barred_cells = rows[:, None], self._barred[self._xp.where(applies, states, 0)]
        cells[barred_cells] = self._xp.where(applies[:, None], -INFINITE, cells[barred_cells])


def log_violation(key: str) -> None:
    """Log the exception of a request whose output violates its budget.

    The gateway, which folds the same tokens, reports it to the client.
    """
    logger.exception(
        "the output of request %s violates its budget, which is no longer enforced", key
    )
