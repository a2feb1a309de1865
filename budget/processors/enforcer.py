"""What budgets do to logits, on either of vLLM's runners.

Nothing here waits for the device, and of a row's logits only the columns that
matter are touched; a row is read in full only to draw its token.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from proctor.budget.machine import BudgetStateMachine
from proctor.budget.matcher import matcher_of
from proctor.budget.processors.backend import Array, ArrayBackend
from proctor.budget.processors.forced_sequences import NO_TOKEN
from proctor.budget.processors.marker_matcher import barred, completing
from proctor.budget.processors.penalties import BatchPenalties
from proctor.budget.processors.sampling import SamplingTable
from proctor.budget.processors.table import BudgetTable, TokenConstraints
from proctor.budget.processors.vocabulary_arrays import unfinished

if TYPE_CHECKING:
    from vllm import SamplingParams

    from proctor.budget.markers import Markers
    from proctor.budget.processors.params import EngineBudget
    from proctor.budget.vocabulary import Vocabulary

INFINITE = float("inf")
CERTAIN = 1e9
"""A logit beside which no other has a chance, as in vLLM's own forcing: one write to a row, where
filling the rest of it with -inf would take a pass over the vocabulary."""


@dataclass(frozen=True, slots=True)
class RowMasks:
    """Which of the held rows need what, as far as the host knows: others may be among them.

    Each is [held] bool.

    Attributes:
        closing: may close their thinking.
        near: are about to reach their maximum.
        suppresses_close: have their attempt to close turned down.
        bound: have a token forced.
        barred: have tokens that must not come.
        lasting: may not end their turn.
    """

    closing: np.ndarray
    near: np.ndarray
    suppresses_close: np.ndarray
    bound: np.ndarray
    barred: np.ndarray
    lasting: np.ndarray


class Enforcer:
    """Holds rows of logits to the budgets in its table.

    Attributes:
        table: the budgets, and where their requests stand.
    """

    def __init__(
        self,
        slots: int,
        markers: "Markers",
        known: "Vocabulary",
        vocabulary: int,
        table: ArrayBackend,
        logits: ArrayBackend,
    ) -> None:
        """As large as the batch can be.

        Args:
            slots: most requests at a time.
            markers: what opens and closes a thinking.
            known: what is known of the tokens.
            vocabulary: columns of a row.
            table: where the table is.
            logits: where the logits are.
        """
        self.table = BudgetTable(slots, markers, table, known)
        self._arrays = logits
        self._xp = logits.xp
        self._unfinished, self._lacking = map(logits.bring, unfinished(known))
        self._sampling = SamplingTable(slots, vocabulary)
        self._eos = logits.bring(sorted(markers.eos))
        matcher = matcher_of(markers, known)
        self._completing = logits.move(completing(matcher, vocabulary))
        self._barred = logits.bring(barred(matcher))
        rests = map(matcher.completion, range(matcher.inside, matcher.inert))
        self._closing = sorted({token for rest in rests for token in rest} | markers.eos)
        self._no_penalties = BatchPenalties((), logits)

    def load(
        self,
        slot: int,
        request: "EngineBudget",
        params: "SamplingParams",
        machine: BudgetStateMachine,
    ) -> None:
        """Put a request into a slot; `machine` has taken its tokens so far."""
        self.table.load(slot, request.budget, machine)
        self._sampling.load(slot, params, request.seed)

    def resize(self, slots: int) -> None:
        """Make the table one of so many slots; what the first of them hold stays."""
        self.table = self.table.resized(slots)

    def hold(
        self,
        logits: torch.Tensor,
        rows: Array,
        slots: np.ndarray,
        demands: TokenConstraints,
        parts: RowMasks,
        penalties: BatchPenalties | None = None,
    ) -> Array:
        """Mask, draw and force, in place.

        A token that something before us has masked, a grammar say, stays
        masked: then the row is left to the sampler, and what it samples will
        differ from what the budget demands.

        Args:
            logits: [_, vocabulary] float32.
            rows: [held] int64; which rows of `logits`, in ascending order.
            slots: [held] int64, on the host; the slot of each.
            demands: what their budgets ask, where the logits are.
            parts: which of them need what.
            penalties: those that the sampler will apply to these rows after us, if any.

        Returns:
            [held] bool; whether the row's token stands for an attempt to close.
        """
        grid = self._arrays.grid(logits)
        penalties = penalties or self._no_penalties
        closing, near, suppresses_close, bound, barred, lasting = map(
            self._these,
            (
                parts.closing,
                parts.near,
                parts.suppresses_close,
                parts.bound,
                parts.barred,
                parts.lasting,
            ),
        )
        if closing is not None and len(self._eos):
            with penalties.select(parts.closing).applied(grid, rows[closing], self._closing):
                self._end_turns(
                    grid, rows[closing], demands.end[closing], demands.may_close[closing]
                )
        if lasting is not None and len(self._eos):
            self._bar_ends(grid, rows[lasting], demands.bars_eos[lasting])
        # A continuation must stand for an attempt even where its character will be cut.
        continuable = (
            None
            if suppresses_close is None
            else self._unmasked(grid, rows, demands, suppresses_close)
        )
        if near is not None:
            self._keep_whole(
                grid,
                rows[near],
                demands.incomplete_bytes[near],
                demands.max_incomplete_bytes[near],
            )
        tokens, attempted = demands.forced, self._xp.zeros_like(demands.suppresses_close)
        may = attempted
        if suppresses_close is not None:
            drawn, attempt = self._draw(
                logits,
                rows,
                slots[parts.suppresses_close],
                demands,
                suppresses_close,
                penalties.select(parts.suppresses_close),
            )
            which = demands.suppresses_close[suppresses_close]
            tokens, may = self._xp.asarray(tokens, copy=True), self._xp.asarray(may, copy=True)
            tokens[suppresses_close] = self._xp.where(which, drawn, tokens[suppresses_close])
            attempted[suppresses_close] = attempt & which
            may[suppresses_close] = attempt & which & continuable
        if bound is not None:
            done = self._force(grid, rows[bound], tokens[bound], may[bound])
            attempted[bound] = attempted[bound] & done
        if barred is not None:
            self._bar(grid, rows[barred], demands.barred[barred])
        return attempted

    def _these(self, which: np.ndarray) -> slice | Array | None:
        """An index that chooses those rows; None if there are none."""
        if which.all():
            return slice(None)
        if not which.any():
            return None
        return self._arrays.move(np.flatnonzero(which))

    def _draw(
        self,
        logits: torch.Tensor,
        rows: Array,
        slots: np.ndarray,
        demands: TokenConstraints,
        at: slice | Array,
        penalties: BatchPenalties,
    ) -> tuple[Array, Array]:
        """Draw a token for the rows `at`; an attempt to close becomes a continuation."""
        every = len(slots) == len(logits)
        chosen = logits if every else logits[torch.as_tensor(rows[at])]
        positions = torch.as_tensor(demands.length[at])
        drawn = self._arrays.grid(self._sampling.draw(penalties.apply(chosen), slots, positions))
        ends_turn = self._xp.any(drawn[:, None] == self._eos, axis=-1)
        attempt = ends_turn | self._completing[demands.matcher_state[at], drawn]
        return self._xp.where(attempt, demands.continuation[at], drawn), attempt

    def _end_turns(self, grid: Array, rows: Array, ends: Array, which: Array) -> None:
        """Inside thinking that may close, an end of turn becomes the end marker."""
        turn_ends = rows, self._eos[:, None]
        end, of_turn = grid[rows, ends], grid[turn_ends]
        which = which & (end > -INFINITE)
        likelier = self._xp.maximum(end, self._xp.max(of_turn, axis=0))
        grid[rows, ends] = self._xp.where(which, likelier, end)
        grid[turn_ends] = self._xp.where(which, -INFINITE, of_turn)

    def _bar_ends(self, grid: Array, rows: Array, which: Array) -> None:
        """Mask every end of turn in the rows of an answer that is too short."""
        turn_ends = rows, self._eos[:, None]
        grid[turn_ends] = self._xp.where(which, -INFINITE, grid[turn_ends])

    def _keep_whole(
        self, grid: Array, rows: Array, incomplete_bytes: Array, max_incomplete_bytes: Array
    ) -> None:
        """Near the cap, mask tokens that would begin a character that it cuts in two."""
        at = rows[:, None], self._unfinished
        splits = self._lacking[incomplete_bytes] > max_incomplete_bytes[:, None]
        grid[at] = self._xp.where(splits, -INFINITE, grid[at])

    def _unmasked(
        self, grid: Array, rows: Array, demands: TokenConstraints, at: slice | Array
    ) -> Array:
        """[chosen] bool: in which of the rows `at` the continuation's first token may come."""
        tokens = demands.continuation[at]
        first = grid[rows[at], self._xp.where(tokens == NO_TOKEN, 0, tokens)]
        return first > -INFINITE

    def _force(self, grid: Array, rows: Array, tokens: Array, may: Array) -> Array:
        """Make each row's token certain, where it has one that is not masked or that `may` be.

        Returns:
            [rows] bool: where a token was made certain.
        """
        forced = tokens != NO_TOKEN
        at = rows, self._xp.where(forced, tokens, 0)
        logit = grid[at]
        which = forced & ((logit > -INFINITE) | may)
        grid[at] = self._xp.where(which, CERTAIN, logit)
        return which

    def _bar(self, grid: Array, rows: Array, states: Array) -> None:
        """Mask what would open a thinking block, in the rows whose state is not NO_TOKEN."""
        which = states != NO_TOKEN
        at = rows[:, None], self._barred[self._xp.where(which, states, 0)]
        grid[at] = self._xp.where(which[:, None], -INFINITE, grid[at])
