"""Penalties on vLLM's V1 runner, whose sampler applies them after the logits processors.

A processor that draws a token or compares logits must use the logits after the sampler's
penalties. Rows to draw from are copied and penalized by vLLM's own function. Where logits are
compared and written back, the penalties are applied to the affected columns before and inverted
afterwards, so that the sampler computes the same values again.
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
    """The penalties of one request, and the tokens that they depend on.

    Attributes:
        presence: subtracted from the logits of generated tokens.
        frequency: subtracted once per occurrence of a generated token.
        repetition: divides positive logits, and multiplies others, of tokens in prompt or output.
        prompt: the prompt's tokens.
        output: the output tokens: vLLM's own list, to which the runner appends.
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
        """Return the penalties of a request, or None if it has none."""
        presence, frequency = params.presence_penalty, params.frequency_penalty
        repetition = params.repetition_penalty
        if not presence and not frequency and repetition == 1:
            return None
        return cls(presence, frequency, repetition, frozenset(prompt or ()), output)

    def divisor(self, token: int) -> float:
        """Return the repetition penalty of a token; 1 if it does not occur."""
        return self.repetition if token in self.prompt or token in self.output else 1

    def subtrahend(self, token: int) -> float:
        """Return the sum of the presence and frequency penalties of a token."""
        count = self.output.count(token)
        return self.frequency * count + (self.presence if count else 0)


class BatchPenalties:
    """The penalties that the sampler applies to some rows of logits."""

    def __init__(self, rows: Sequence[RowPenalties | None], arrays: ArrayBackend) -> None:
        """Collect the penalties of each row.

        Args:
            rows: one entry per row; None for a row without penalties.
            arrays: the backend of the logits.
        """
        self._rows = rows
        self._arrays = arrays
        self._penalized = [(row, entry) for row, entry in enumerate(rows) if entry is not None]

    def select(self, mask: np.ndarray) -> "BatchPenalties":
        """Return the penalties of the rows that a mask, [rows] bool, selects."""
        if not self._penalized:
            return self
        return BatchPenalties([*compress(self._rows, mask)], self._arrays)

    def are_penalized(self, rows: int) -> np.ndarray:
        """Return, [rows] bool, which of the rows have penalties."""
        penalized = np.zeros(rows, dtype=bool)
        penalized[[row for row, _ in self._penalized]] = True
        return penalized

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Return penalized logits, without modifying `logits`, [rows, vocabulary] float32."""
        if not self._penalized:
            return logits
        device, vocabulary = logits.device, logits.shape[-1]
        rows, entries = zip(*self._penalized, strict=True)
        index = async_tensor_h2d([*rows], device=device)

        def to_device(column: list[float]) -> torch.Tensor:
            return async_tensor_h2d(column, device=device, dtype=torch.float32)

        prompts = make_tensor_with_pad(
            [[*entry.prompt] for entry in entries], vocabulary, torch.int64, pin_memory=PIN_MEMORY
        )
        penalized = apply_all_penalties(
            logits[index],
            prompts.to(device, non_blocking=True),
            to_device([entry.presence for entry in entries]),
            to_device([entry.frequency for entry in entries]),
            to_device([entry.repetition for entry in entries]),
            [entry.output for entry in entries],
        )
        return logits.index_copy(0, index, penalized)

    @contextmanager
    def applied(self, logits: Array, rows: Array, tokens: Sequence[int]) -> Iterator[None]:
        """Penalize a few columns in place on entry, and invert that on exit.

        Args:
            logits: [_, vocabulary] float32.
            rows: [rows] int64; the indices of these rows in the logits.
            tokens: the columns.
        """
        if not self._penalized:
            yield
            return

        def penalty_table(penalty: Callable[[RowPenalties, int], float]) -> Array:
            """Return a penalty, [penalized rows, tokens] float32."""
            table = [[penalty(entry, token) for token in tokens] for _, entry in self._penalized]
            return self._arrays.to_device(np.array(table, dtype=np.float32))

        where = self._arrays.xp.where
        penalized_rows = rows[self._arrays.as_int64([row for row, _ in self._penalized])]
        index = penalized_rows[:, None], self._arrays.as_int64(tokens)
        divisor = penalty_table(RowPenalties.divisor)
        subtrahend = penalty_table(RowPenalties.subtrahend)
        original = logits[index]
        logits[index] = where(original > 0, original / divisor, original * divisor) - subtrahend
        yield
        scaled = logits[index] + subtrahend
        logits[index] = where(scaled > 0, scaled * divisor, scaled / divisor)
