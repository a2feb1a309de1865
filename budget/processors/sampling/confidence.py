"""The confidence of the thinking of a batch: `proctor.budget.confidence`, vectorized.

Nothing here waits for the device, except where that is said.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from proctor.budget.confidence import TOP_K, ConfidenceExit
from proctor.budget.outcome import EndReason

VERDICTS = (None, EndReason.SETTLED, EndReason.UNSURE)
"""The meanings of the numbers in `ConfidenceTable.verdicts`."""


class _Numbers(NamedTuple):
    """The settings of each slot, [slots] each."""

    window: torch.Tensor
    threshold: torch.Tensor
    patience: torch.Tensor
    floor: torch.Tensor


class ConfidenceTable:
    """The windows of up to `slots` requests.

    They are not a function of the tokens: a request that was preempted begins a new window.

    Attributes:
        verdicts: [slots] int64, on the device; indices into `VERDICTS`.
    """

    def __init__(self, slots: int, max_rows: int, device: torch.device) -> None:
        """Create a table without requests.

        Args:
            slots: the maximum number of requests in the batch.
            max_rows: the maximum number of rows of a request in a step.
            device: the logits' device.
        """

        def numbers(dtype: torch.dtype) -> torch.Tensor:
            return torch.zeros(slots, dtype=dtype, device=device)

        self._device = device
        self._numbers = _Numbers(
            numbers(torch.int64),
            numbers(torch.float32),
            numbers(torch.int64),
            numbers(torch.float32),
        )
        # [max_rows, slots] float32: the confidence of each row's token, NaN if it does not count.
        self._seen = torch.full((max_rows, slots), math.nan, device=device)
        self._sum, self._count = numbers(torch.float32), numbers(torch.int64)
        self._streak = numbers(torch.int64)
        self.verdicts = numbers(torch.int64)
        self._watched = np.zeros(slots, dtype=bool)

    @property
    def watches_any(self) -> bool:
        """Whether any slot has a request that may end by its confidence."""
        return bool(self._watched.any())

    def watched(self, slots: np.ndarray) -> np.ndarray:
        """Return whether each of some slots, [n] int on the host, may end, [n] bool."""
        return self._watched[slots]

    def load(self, slot: int, settings: ConfidenceExit | None) -> None:
        """Load a request into a slot, with an empty window."""
        self._watched[slot] = settings is not None
        if settings is None:
            return
        values = (
            settings.window,
            math.inf if settings.threshold is None else settings.threshold,
            settings.patience,
            -math.inf if settings.floor is None else settings.floor,
        )
        for column, value in zip(self._numbers, values, strict=True):
            column[slot] = value
        self._seen[:, slot] = math.nan
        for column in (self._sum, self._count, self._streak, self.verdicts):
            column[slot] = 0

    def unload(self, slot: int) -> None:
        """Empty a slot."""
        self._watched[slot] = False

    def observe(
        self,
        confidence: torch.Tensor,
        slots: torch.Tensor,
        is_sampling: torch.Tensor,
        taken: int = 0,
    ) -> None:
        """Note the confidence of the next tokens of n rows.

        Args:
            confidence: [n] float32; see `token_confidence`.
            slots: [n] int64.
            is_sampling: [n] bool; whether the next token is a sampled thinking token.
            taken: the number of draft tokens before the rows.
        """
        self._seen[taken].index_copy_(0, slots, torch.where(is_sampling, confidence, math.nan))

    def advance(self, slots: torch.Tensor, has_token: torch.Tensor, taken: int = 0) -> None:
        """Take the tokens of n rows.

        Args:
            slots: [n] int64.
            has_token: [n] bool; whether the row's token was accepted.
            taken: the number of draft tokens before the rows.
        """
        value = self._seen[taken][slots]
        window, threshold, patience, floor = (column[slots] for column in self._numbers)
        counts = has_token & ~value.isnan()
        total = self._sum[slots] + torch.where(counts, value, 0.0)
        count = self._count[slots] + counts
        is_full = counts & (count >= window)
        mean = total / count.clamp(min=1)
        is_lost = is_full & (mean < floor)
        is_settled = is_full & ~is_lost & (mean >= threshold)
        streak = torch.where(is_full, torch.where(is_settled, self._streak[slots] + 1, 0), 0)
        streak = torch.where(is_full, streak, self._streak[slots])
        settled = is_settled & (streak >= patience)
        verdict = torch.where(is_lost, 2, torch.where(settled, 1, self.verdicts[slots]))
        self._seen[taken].index_fill_(0, slots, math.nan)
        self._sum.index_copy_(0, slots, torch.where(is_full, 0.0, total))
        self._count.index_copy_(0, slots, torch.where(is_full, 0, count))
        self._streak.index_copy_(0, slots, streak)
        self.verdicts.index_copy_(0, slots, verdict)


def token_confidence(logits: torch.Tensor) -> torch.Tensor:
    """Return the negative mean log probability of the `TOP_K` most likely tokens.

    Tokens that are masked do not count.

    Args:
        logits: [n, vocabulary] float32.

    Returns:
        [n] float32.
    """
    top = torch.topk(logits, min(TOP_K, logits.shape[-1]), dim=-1).values
    is_possible = top > -math.inf
    mean = torch.where(is_possible, top, 0.0).sum(dim=-1) / is_possible.sum(dim=-1)
    return torch.logsumexp(logits, dim=-1) - mean
