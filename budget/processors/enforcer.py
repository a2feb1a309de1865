"""What budgets do to logits, on either of vLLM's runners.

Nothing here waits for the device, and of a row's logits only the columns that
matter are touched; a row is read in full only to draw its token.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d

from budget.machine import Machine
from budget.processors.arrays import Arrays
from budget.processors.sampling import SamplingTable
from budget.processors.scripts import NO_TOKEN
from budget.processors.table import BudgetTable, Demands

if TYPE_CHECKING:
    from vllm import SamplingParams

    from budget.markers import Markers
    from budget.processors.wire import EngineBudget
    from budget.vocabulary import Vocabulary

CERTAIN = 1e9
"""A logit beside which no other has a chance, as in vLLM's own forcing: one write to a row, where
filling the rest of it with -inf would take a pass over the vocabulary."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Which of the held rows need what, as far as the host knows: others may be among them.

    Each is [held] bool.

    Attributes:
        closing: may close their thinking.
        near: are about to reach their maximum.
        guarded: have their attempt to close turned down.
        bound: have a token forced or forbidden.
    """

    closing: np.ndarray
    near: np.ndarray
    guarded: np.ndarray
    bound: np.ndarray


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
        device: torch.device,
        arrays: Arrays,
    ) -> None:
        """`known` is what is known of the tokens, `vocabulary` how many columns a row has.

        The logits are on `device`, the table is where `arrays` are.
        """
        self.table = BudgetTable(slots, markers, arrays, known)
        self._device = device
        self._unfinished = torch.as_tensor(self.table.unfinished, device=device)
        self._lacking = torch.as_tensor(self.table.lacking, device=device)
        self._sampling = SamplingTable(slots, vocabulary)
        self._eos = torch.tensor(sorted(markers.eos), dtype=torch.int64, device=device)

    def load(
        self, slot: int, request: "EngineBudget", params: "SamplingParams", machine: Machine
    ) -> None:
        """Put a request into a slot; `machine` has taken its tokens so far."""
        self.table.load(slot, request.budget, machine)
        self._sampling.load(slot, params, request.seed)

    def hold(
        self,
        logits: torch.Tensor,
        rows: torch.Tensor,
        slots: np.ndarray,
        demands: Demands,
        parts: Parts,
    ) -> torch.Tensor:
        """Mask, draw and force, in place.

        A token that something before us has masked, a grammar say, stays
        masked: then the row is left to the sampler, and what it samples will
        differ from what the budget demands.

        Args:
            logits: [_, vocabulary] float32.
            rows: [held] int64; which rows of `logits`, in ascending order.
            slots: [held] int64, on the host; the slot of each.
            demands: what their budgets ask, on the device of the logits.
            parts: which of them need what.

        Returns:
            [held] bool; whether the row's token stands for an attempt to close.
        """
        closing, near, guarded, bound = map(
            self._these, (parts.closing, parts.near, parts.guarded, parts.bound)
        )
        if closing is not None and len(self._eos):
            self._end_turns(logits, rows[closing], demands.end[closing], demands.may_close[closing])
        # A continuation must stand for an attempt even where its character will be cut.
        continuable = None if guarded is None else _unmasked(logits, rows, demands, guarded)
        if near is not None:
            self._keep_whole(logits, rows[near], demands.missing[near], demands.most_missing[near])
        tokens, attempted = demands.forced, torch.zeros_like(demands.guarded)
        may = attempted
        if guarded is not None:
            drawn, attempt = self._draw(logits, rows, slots[parts.guarded], demands, guarded)
            which = demands.guarded[guarded]
            tokens, may = tokens.clone(), may.clone()
            tokens[guarded] = torch.where(which, drawn, tokens[guarded])
            attempted[guarded] = attempt & which
            may[guarded] = attempt & which & continuable
        if bound is not None:
            done = _force(logits, rows[bound], tokens[bound], may[bound], demands.forbidden[bound])
            attempted[bound] = attempted[bound] & done
        return attempted

    def _these(self, which: np.ndarray) -> slice | torch.Tensor | None:
        """An index that chooses those rows; None if there are none."""
        if which.all():
            return slice(None)
        if not which.any():
            return None
        return async_tensor_h2d(np.flatnonzero(which), device=self._device)

    def _draw(
        self,
        logits: torch.Tensor,
        rows: torch.Tensor,
        slots: np.ndarray,
        demands: Demands,
        at: slice | torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw a token for the rows `at`; an attempt to close becomes a continuation."""
        every = len(slots) == len(logits)
        chosen = logits if every else logits[rows[at]]
        drawn = self._sampling.draw(chosen, slots, demands.length[at])
        ends_turn = (drawn[:, None] == self._eos).any(dim=-1)
        attempt = ends_turn | (drawn == demands.closes[at])
        return torch.where(attempt, demands.continuation[at], drawn), attempt

    def _end_turns(
        self, logits: torch.Tensor, rows: torch.Tensor, ends: torch.Tensor, which: torch.Tensor
    ) -> None:
        """Inside thinking that may close, an end of turn becomes the end marker."""
        end_at, of_turn_at = _cells(logits, rows, ends), _cells(logits, rows, self._eos[:, None])
        end, of_turn = logits.take(end_at), logits.take(of_turn_at)
        which = which & (end > -torch.inf)
        logits.put_(end_at, torch.where(which, torch.maximum(end, of_turn.amax(dim=0)), end))
        logits.put_(of_turn_at, of_turn.masked_fill(which, -torch.inf))

    def _keep_whole(
        self,
        logits: torch.Tensor,
        rows: torch.Tensor,
        missing: torch.Tensor,
        most_missing: torch.Tensor,
    ) -> None:
        """Near the cap, mask tokens that would begin a character that it cuts in two."""
        at = rows[:, None], self._unfinished
        splits = self._lacking[missing] > most_missing[:, None]
        logits[at] = logits[at].masked_fill(splits, -torch.inf)


def _unmasked(
    logits: torch.Tensor, rows: torch.Tensor, demands: Demands, at: slice | torch.Tensor
) -> torch.Tensor:
    """[chosen] bool: in which of the rows `at` the continuation's first token may come."""
    first = logits[rows[at], demands.continuation[at].clamp(min=0)]
    return first > -torch.inf


def _force(
    logits: torch.Tensor,
    rows: torch.Tensor,
    tokens: torch.Tensor,
    may: torch.Tensor,
    forbidden: torch.Tensor,
) -> torch.Tensor:
    """Make each row's token certain, where it has one that is not masked or that `may` be.

    Where it has none, mask the row's `forbidden` one, if there is one.

    Returns:
        [rows] bool: where a token was made certain.
    """
    forced = tokens != NO_TOKEN
    at = _cells(logits, rows, torch.where(forced, tokens, forbidden).clamp(min=0))
    logit = logits.take(at)
    which = forced & ((logit > -torch.inf) | may)
    masked = ~forced & (forbidden != NO_TOKEN)
    logits.put_(at, logit.masked_fill(which, CERTAIN).masked_fill(masked, -torch.inf))
    return which


def _cells(logits: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Where some cells are for `take` and `put_`, which cost a third of indexing on the CPU."""
    return rows * logits.shape[1] + columns
