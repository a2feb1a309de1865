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
from budget.processors.sampling import SamplingTable
from budget.processors.table import NO_TOKEN, BudgetTable, State

if TYPE_CHECKING:
    from vllm import SamplingParams

    from budget.markers import Markers
    from budget.processors.wire import EngineBudget
    from budget.vocabulary import Vocabulary

CERTAIN = 1e9
"""A logit beside which no other has a chance, as in vLLM's own forcing: one write to a row, where
filling the rest of it with -inf would take a pass over the vocabulary."""


@dataclass(frozen=True, slots=True)
class Held:
    """The rows of a batch that are held to a budget.

    Attributes:
        slots: [held] int64; the slot of each.
        guarded: indices of those whose attempt to close may have to be turned
            down; others may be among them.
        guarded_slots: the slots of those, on the host.
        near: indices of those that may be about to reach their maximum; others
            may be among them.
    """

    slots: torch.Tensor
    guarded: torch.Tensor
    guarded_slots: np.ndarray
    near: torch.Tensor

    @classmethod
    def of(
        cls, slots: np.ndarray, guarded: np.ndarray, near: np.ndarray, device: torch.device
    ) -> "Held":
        """From the host: the slots, [held] int64, and two masks over them."""

        def bring(numbers: np.ndarray) -> torch.Tensor:
            return async_tensor_h2d(numbers, device=device)

        return cls(
            bring(slots),
            bring(np.flatnonzero(guarded)),
            slots[guarded],
            bring(np.flatnonzero(near)),
        )


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
    ) -> None:
        """`known` is what is known of the tokens, `vocabulary` how many columns a row has."""
        self.table = BudgetTable(slots, markers, device, known)
        self._sampling = SamplingTable(slots, vocabulary)
        self._eos = torch.tensor(sorted(markers.eos), dtype=torch.int64, device=device)

    def load(
        self, slot: int, request: "EngineBudget", params: "SamplingParams", machine: Machine
    ) -> None:
        """Put a request into a slot; `machine` has taken its tokens so far."""
        self.table.load(slot, request.budget, machine)
        self._sampling.load(slot, params, request.seed)

    def hold(
        self, logits: torch.Tensor, rows: torch.Tensor, held: Held, state: State
    ) -> torch.Tensor:
        """Mask, draw and force, in place.

        A token that something before us has masked, a grammar say, stays
        masked: then the row is left to the sampler, and what it samples will
        differ from what the budget demands.

        Args:
            logits: [_, vocabulary] float32.
            rows: [held] int64; which rows of `logits`, none of them twice.
            held: what holds for each of them.
            state: where the slots stand before the token of these rows.

        Returns:
            [held] bool; whether the row's token stands for an attempt to close.
        """
        table, slots = self.table, held.slots
        guarded = table.guarded(state)[slots]
        may_close = table.free(state)[slots] & ~guarded
        self._end_turns(logits, rows, table.end_token(state)[slots], may_close)
        attempted = continuable = torch.zeros_like(guarded)
        if len(held.guarded):
            # A continuation must stand for an attempt even where its character will be cut.
            continuation = table.continuation(state)[slots].clamp(min=0)
            continuable = logits[rows, continuation] > -torch.inf
        if len(held.near):
            self._keep_whole(logits, rows[held.near], slots[held.near], state)
        tokens = table.forced(state)[slots]
        if len(held.guarded):
            drawn, attempt = self._draw(logits, rows[held.guarded], held, state)
            tokens = torch.where(guarded, tokens.index_copy(0, held.guarded, drawn), tokens)
            attempted = guarded & attempted.index_copy(0, held.guarded, attempt)
        forbidden = table.forbidden(state)[slots]
        return attempted & _force(logits, rows, tokens, attempted & continuable, forbidden)

    def _draw(
        self, logits: torch.Tensor, rows: torch.Tensor, held: Held, state: State
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw a token for each row; an attempt to close becomes a continuation."""
        table, slots = self.table, held.slots[held.guarded]
        drawn = self._sampling.draw(logits[rows], held.guarded_slots, state.length[slots])
        ends_turn = (drawn[:, None] == self._eos).any(dim=-1)
        attempt = ends_turn | (drawn == table.closes(state)[slots])
        return torch.where(attempt, table.continuation(state)[slots], drawn), attempt

    def _end_turns(
        self, logits: torch.Tensor, rows: torch.Tensor, ends: torch.Tensor, which: torch.Tensor
    ) -> None:
        """Inside thinking that may close, an end of turn becomes the end marker."""
        at = rows[:, None], torch.cat((ends[:, None], self._eos.expand(len(rows), -1)), dim=1)
        either = logits[at]
        end = either[:, :1]
        which = which[:, None] & (end > -torch.inf)
        after = either.masked_fill(which, -torch.inf)
        after[:, :1] = torch.where(which, either.amax(dim=1, keepdim=True), end)
        logits[at] = after

    def _keep_whole(
        self, logits: torch.Tensor, rows: torch.Tensor, slots: torch.Tensor, state: State
    ) -> None:
        """Near the cap, mask tokens that would begin a character that it cuts in two."""
        at = rows[:, None], self.table.unfinished
        splits = self.table.splits(state, slots)
        logits[at] = logits[at].masked_fill(splits, -torch.inf)


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
    at = rows, torch.where(forced, tokens, forbidden).clamp(min=0)
    logit = logits[at]
    which = forced & ((logit > -torch.inf) | may)
    masked = ~forced & (forbidden != NO_TOKEN)
    logits[at] = logit.masked_fill(which, CERTAIN).masked_fill(masked, -torch.inf)
    return which
