"""Draws a row's next token from the distribution that vLLM's sampler would use.

Whether the model attempts to close its thinking is known only after sampling, when
the token is already in the sequence. Rows whose attempts are replaced are therefore
sampled here, from the same distribution as in vLLM's sampler: temperature, then min-p,
then top-k and top-p. The text thus has the same distribution as with the reference loop
of s1 (arXiv 2501.19393), which samples, strips the delimiter and resubmits. The random
number is a pure function of seed and position, so that a request that is preempted and
resumed draws the same token again.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from vllm.sampling_params import SamplingParams
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

GREEDY_BELOW = 1e-5
"""Temperatures below this are greedy, as in vLLM's sampler."""

BLOCK = 64
"""Number of columns that are reduced to one first: on the CPU, an argmax over the vocabulary takes
six times as long as the maximum, and cumulative sums several times as long as the softmax."""


class RowSampling(NamedTuple):
    """The sampling settings of some rows, on the host; each array is [rows].

    Attributes:
        temperature: float32.
        top_p: float32.
        top_k: int32; the size of the vocabulary without a limit.
        min_p: float32.
        noise: float64; the random number of the row's next token, in [0, 1).
    """

    temperature: np.ndarray
    top_p: np.ndarray
    top_k: np.ndarray
    min_p: np.ndarray
    noise: np.ndarray

    def at(self, row: int) -> tuple[float, float, int, float]:
        """Return the temperature, top-p, top-k and min-p of a row."""
        return (
            float(self.temperature[row]),
            float(self.top_p[row]),
            int(self.top_k[row]),
            float(self.min_p[row]),
        )

    def truncates(self, vocabulary: int) -> np.ndarray:
        """Return, [rows] bool, where tokens are cut off before the draw."""
        return (self.top_p < 1) | (self.top_k < vocabulary) | (self.min_p > 0)


class SamplingTable:
    """The sampling settings of up to `slots` requests.

    They are kept on the host, to skip steps that no selected request needs without
    waiting for the device.
    """

    def __init__(self, slots: int, vocabulary: int) -> None:
        """Create a table for `slots` requests and a vocabulary of this size."""
        self._vocabulary = vocabulary
        self._temperature = np.zeros(slots, dtype=np.float32)
        self._top_p = np.ones(slots, dtype=np.float32)
        self._top_k = np.full(slots, vocabulary, dtype=np.int32)
        self._min_p = np.zeros(slots, dtype=np.float32)
        self._seed = np.zeros(slots, dtype=np.int64)

    def load(self, slot: int, params: SamplingParams, seed: int) -> None:
        """Load a request's settings; `seed` is a signed 64-bit integer."""
        self._temperature[slot] = params.temperature
        self._top_p[slot] = params.top_p
        is_limited = 0 < params.top_k < self._vocabulary
        self._top_k[slot] = params.top_k if is_limited else self._vocabulary
        self._min_p[slot] = params.min_p
        self._seed[slot] = seed

    def rows(self, slots: np.ndarray, positions: np.ndarray) -> RowSampling:
        """Return the settings of some slots, and the random numbers of their next tokens.

        Args:
            slots: [rows] int.
            positions: [rows] int64; the number of tokens generated before this one.
        """
        noise = uniform(torch.from_numpy(self._seed[slots]), torch.from_numpy(positions))
        return RowSampling(
            self._temperature[slots],
            self._top_p[slots],
            self._top_k[slots],
            self._min_p[slots],
            noise.numpy(),
        )

    def noise(self, slot: int, position: int) -> Callable[[int], float]:
        """Return the random numbers of a token: a function of the number of the attempt.

        Args:
            slot: the slot of the request.
            position: the number of tokens generated before.
        """

        def number(attempt: int) -> float:
            seed = torch.from_numpy(self._seed[slot : slot + 1])
            return float(uniform(seed, torch.tensor([int(position) + (attempt << 32)])))

        return number

    def draw(
        self, logits: torch.Tensor, slots: np.ndarray, positions: torch.Tensor
    ) -> torch.Tensor:
        """Draw each row's next token, without waiting for the device.

        Args:
            logits: [rows, vocabulary] float32, before temperature.
            slots: [rows] int, on the host; the slot of each row.
            positions: [rows] int64; the number of tokens generated before this one.

        Returns:
            [rows] int64 token ids.
        """

        def to_device(column: np.ndarray) -> torch.Tensor:
            return async_tensor_h2d(column, device=logits.device)

        argmax = _argmax(logits)
        temperature = self._temperature[slots]
        greedy = temperature < GREEDY_BELOW
        if greedy.all():
            return argmax
        top_k, top_p, min_p = self._top_k[slots], self._top_p[slots], self._min_p[slots]
        scaled = logits / to_device(np.where(greedy, np.float32(1), temperature))[:, None]
        if min_p.any():
            scaled = _apply_min_p(scaled, to_device(min_p))
        k = to_device(top_k) if (top_k < self._vocabulary).any() else None
        p = to_device(top_p) if (top_p < 1).any() else None
        scaled = apply_top_k_top_p(scaled, k, p)
        noise = uniform(to_device(self._seed[slots]), positions)
        return torch.where(to_device(greedy), argmax, _inverse_cdf(scaled.softmax(dim=-1), noise))


def uniform(seed: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Return random numbers in [0, 1) as a function of seed and position.

    SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators,
    2014), with wrapping int64 arithmetic.

    Args:
        seed: [rows] int64.
        position: [rows] int64.

    Returns:
        [rows] float64.
    """
    state = seed + (position + 1) * _signed(0x9E3779B97F4A7C15)
    state = (state ^ _shift(state, 30)) * _signed(0xBF58476D1CE4E5B9)
    state = (state ^ _shift(state, 27)) * _signed(0x94D049BB133111EB)
    state = state ^ _shift(state, 31)
    return _shift(state, 11).double() * 2.0**-53


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _shift(value: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift right logically; torch's own operator shifts arithmetically."""
    return (value >> bits) & (2 ** (64 - bits) - 1)


def _apply_min_p(logits: torch.Tensor, min_p: torch.Tensor) -> torch.Tensor:
    probabilities = logits.softmax(dim=-1)
    minimum = probabilities.amax(dim=-1, keepdim=True) * min_p[:, None]
    return logits.masked_fill(probabilities < minimum, -torch.inf)


def _argmax(logits: torch.Tensor) -> torch.Tensor:
    """Return each row's first maximum, [rows] int64, as in vLLM's sampler."""
    block = _reduce_blocks(logits, torch.amax).argmax(dim=-1)
    return block * BLOCK + _gather_block(logits, block, -torch.inf).argmax(dim=-1)


def _inverse_cdf(probabilities: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Sample by inverse transform.

    Args:
        probabilities: [rows, vocabulary] float32.
        noise: [rows] float64, in [0, 1).

    Returns:
        [rows] int64 token ids.
    """
    block, noise_in_block = _search(_reduce_blocks(probabilities, torch.sum), noise)
    index, _ = _search(_gather_block(probabilities, block, 0), noise_in_block)
    return block * BLOCK + index


def _reduce_blocks(rows: torch.Tensor, reduce: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Reduce each block of columns, the last of which may be shorter: [rows, blocks]."""
    columns = rows.shape[-1]
    full = columns - columns % BLOCK
    blocks = [reduce(rows[:, :full].unflatten(-1, (-1, BLOCK)), dim=-1)]
    if full < columns:
        blocks.append(reduce(rows[:, full:], dim=-1, keepdim=True))
    return torch.cat(blocks, dim=-1)


def _gather_block(rows: torch.Tensor, block: torch.Tensor, padding: float) -> torch.Tensor:
    """Return one block of each row, [rows, BLOCK], padded if it is shorter."""
    columns = rows.shape[-1]
    index = block[:, None] * BLOCK + torch.arange(BLOCK, device=rows.device)
    values = rows.gather(-1, index.clamp(max=columns - 1))
    return values.masked_fill(index >= columns, padding)


def _search(weights: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the column in which a fraction of each row's sum falls.

    Args:
        weights: [rows, columns] float32.
        noise: [rows] float64; the fractions.

    Returns:
        The columns, [rows] int64, and the fractions within them, [rows] float64.
    """
    cumulative = weights.double().cumsum(dim=-1)
    total = cumulative[:, -1]
    # The target stays below the sum even after rounding, and a target that equals a cumulative
    # sum belongs to the next column, so that a column of weight 0 is never drawn.
    target = torch.minimum(noise * total, total.nextafter(torch.zeros_like(total)))[:, None]
    index = torch.searchsorted(cumulative, target, right=True)
    weight = weights.gather(-1, index).double()
    fraction = (target - cumulative.gather(-1, index) + weight) / weight
    return index[:, 0], fraction[:, 0].clamp(0, 1)
