"""Penalties beside budgets on vLLM's V1 runner, whose sampler applies them after the processors.

A processor that draws a token, or compares logits, must do so on the logits that the sampler
would have after its penalties. Rows that are drawn are penalized first, in a copy, by vLLM's own
function. Where logits are compared and written back, the penalties are applied to those columns
before and inverted afterwards, so that the sampler arrives at the same values again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from typing import Self

import numpy as np
import torch
from vllm.sampling_params import SamplingParams
from vllm.utils.torch_utils import PIN_MEMORY, async_tensor_h2d, make_tensor_with_pad
from vllm.v1.sample.ops.penalties import apply_all_penalties

from proctor.budget.processors.backend import Array, ArrayBackend


@dataclass(frozen=True, slots=True)
class RowPenalties:
    """The penalties of one request, and the tokens that they count.

    Attributes:
        presence: subtracted from the logits of tokens that were generated.
        frequency: the same, once for each time that they were.
        repetition: divides positive logits, and multiplies others, of tokens in prompt or output.
        prompt: the tokens of its prompt.
        output: vLLM's own list of its output tokens, which grows under us.
    """

    presence: float
    frequency: float
    repetition: float
    prompt: frozenset[int]
    output: list[int]

    @classmethod
    def of(
        cls, params: SamplingParams, prompt: Sequence[int] | None, output: list[int]
    ) -> Self | None:
        """Return the penalties of a request that joins the batch, or None if it has none."""
        presence, frequency = params.presence_penalty, params.frequency_penalty
        repetition = params.repetition_penalty
        if not presence and not frequency and repetition == 1:
            return None
        return cls(presence, frequency, repetition, frozenset(prompt or ()), output)

    def divisor(self, token: int) -> float:
        """Return the repetition penalty of a token, 1 if it was not seen."""
        return self.repetition if token in self.prompt or token in self.output else 1

    def subtrahend(self, token: int) -> float:
        """Return what presence and frequency penalties subtract from a token's logit."""
        count = self.output.count(token)
        return self.frequency * count + (self.presence if count else 0)


class BatchPenalties:
    """The penalties that the sampler will apply to some rows of logits."""

    def __init__(self, rows: Sequence[RowPenalties | None], arrays: ArrayBackend) -> None:
        """Hold the penalties of each row.

        Args:
            rows: one entry for each row; None for a row without penalties.
            arrays: where the logits are.
        """
        self._rows = rows
        self._arrays = arrays
        self._penalized = [(row, entry) for row, entry in enumerate(rows) if entry is not None]

    def select(self, which: np.ndarray) -> "BatchPenalties":
        """Return those of the rows that a mask, [rows] bool, chooses."""
        if not self._penalized:
            return self
        return BatchPenalties([*compress(self._rows, which)], self._arrays)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Return penalized logits, [rows, vocabulary] float32, and leave the given ones alone."""
        if not self._penalized:
            return logits
        device, vocabulary = logits.device, logits.shape[-1]
        rows, entries = zip(*self._penalized, strict=True)
        at = async_tensor_h2d([*rows], device=device)

        def bring(column: list[float]) -> torch.Tensor:
            return async_tensor_h2d(column, device=device, dtype=torch.float32)

        prompts = make_tensor_with_pad(
            [[*entry.prompt] for entry in entries], vocabulary, torch.int64, pin_memory=PIN_MEMORY
        )
        penalized = apply_all_penalties(
            logits[at],
            prompts.to(device, non_blocking=True),
            bring([entry.presence for entry in entries]),
            bring([entry.frequency for entry in entries]),
            bring([entry.repetition for entry in entries]),
            [entry.output for entry in entries],
        )
        return logits.index_copy(0, at, penalized)

    @contextmanager
    def applied(self, grid: Array, rows: Array, tokens: Sequence[int]) -> Iterator[None]:
        """Penalize a few columns of a grid in place on entry, and invert that on exit.

        Args:
            grid: the logits.
            rows: [rows] int64; which of its rows these are.
            tokens: the columns.
        """
        if not self._penalized:
            yield
            return

        def table(cell: Callable[[RowPenalties, int], float]) -> Array:
            cells = [[cell(entry, token) for token in tokens] for _, entry in self._penalized]
            return self._arrays.move(np.array(cells, dtype=np.float32))

        where = self._arrays.xp.where
        chosen = rows[self._arrays.bring([row for row, _ in self._penalized])]
        at = chosen[:, None], self._arrays.bring(tokens)
        divisor, subtrahend = table(RowPenalties.divisor), table(RowPenalties.subtrahend)
        logits = grid[at]
        grid[at] = where(logits > 0, logits / divisor, logits * divisor) - subtrahend
        yield
        scaled = grid[at] + subtrahend
        grid[at] = where(scaled > 0, scaled * divisor, scaled / divisor)
