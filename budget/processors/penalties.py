"""Penalties on vLLM's V1 runner, whose sampler applies them after the processors.

What is decided here about a row, which token it gets or whether it closes, has to be decided on the
logits that the sampler would have had. So a row that is drawn here is penalised first, in a copy,
by vLLM's own function; and where logits of a row are compared, that is done as they will be, and
the outcome is written as it must stand to become that.
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

from budget.processors.arrays import Array, Arrays


@dataclass(frozen=True, slots=True)
class Penalised:
    """A request with penalties, and the tokens that they count.

    Attributes:
        presence: taken off the logits of tokens that were generated.
        frequency: the same, for each time that they were.
        repetition: what logits of tokens seen, the prompt's too, are divided by.
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
        """From what vLLM tells of a request that it adds; None if it has no penalties."""
        presence, frequency = params.presence_penalty, params.frequency_penalty
        repetition = params.repetition_penalty
        if not presence and not frequency and repetition == 1:
            return None
        return cls(presence, frequency, repetition, frozenset(prompt or ()), output)

    def divisor(self, token: int) -> float:
        """What a token's logit is divided by if it is positive, and else multiplied by."""
        return self.repetition if token in self.prompt or token in self.output else 1

    def taken_off(self, token: int) -> float:
        """What is then taken off it."""
        count = self.output.count(token)
        return self.frequency * count + (self.presence if count else 0)


class Penalties:
    """What the sampler will still do to some rows of logits."""

    def __init__(self, rows: Sequence[Penalised | None], arrays: Arrays) -> None:
        """One for each row; None for a row without penalties. `arrays` is where the logits are."""
        self._rows = rows
        self._arrays = arrays
        self._found = [(row, one) for row, one in enumerate(rows) if one is not None]

    def of(self, which: np.ndarray) -> "Penalties":
        """Those of the rows that `which`, [rows] bool, chooses."""
        return Penalties([*compress(self._rows, which)], self._arrays) if self._found else self

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits, [rows, vocabulary] float32, penalised; those given stay as they are."""
        if not self._found:
            return logits
        device, vocabulary = logits.device, logits.shape[-1]
        at, ones = zip(*self._found, strict=True)
        rows = async_tensor_h2d([*at], device=device)

        def bring(column: list[float]) -> torch.Tensor:
            return async_tensor_h2d(column, device=device, dtype=torch.float32)

        prompts = make_tensor_with_pad(
            [[*one.prompt] for one in ones], vocabulary, torch.int64, pin_memory=PIN_MEMORY
        )
        penalised = apply_all_penalties(
            logits[rows],
            prompts.to(device, non_blocking=True),
            bring([one.presence for one in ones]),
            bring([one.frequency for one in ones]),
            bring([one.repetition for one in ones]),
            [one.output for one in ones],
        )
        return logits.index_copy(0, rows, penalised)

    @contextmanager
    def ahead(self, grid: Array, rows: Array, tokens: Sequence[int]) -> Iterator[None]:
        """Let a few columns of the grid be what the sampler will make of them, for a while.

        Args:
            grid: the logits, written in place.
            rows: [rows] int64; which of its rows these are.
            tokens: the columns.
        """
        if not self._found:
            yield
            return

        def table(cell: Callable[[Penalised, int], float]) -> Array:
            cells = [[cell(one, token) for token in tokens] for _, one in self._found]
            return self._arrays.move(np.array(cells, dtype=np.float32))

        where = self._arrays.xp.where
        chosen = rows[self._arrays.bring([row for row, _ in self._found])]
        at = chosen[:, None], self._arrays.bring(tokens)
        divisor, taken_off = table(Penalised.divisor), table(Penalised.taken_off)
        logits = grid[at]
        grid[at] = where(logits > 0, logits / divisor, logits * divisor) - taken_off
        yield
        scaled = grid[at] + taken_off
        grid[at] = where(scaled > 0, scaled * divisor, scaled / divisor)
