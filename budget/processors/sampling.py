"""What the sampler would have drawn: a row's next token under its own settings.

An attempt to close the thinking is known only once a token is drawn, and by
then it stands in the sequence. So rows whose attempt would be turned down are
drawn here instead, by the same law as vLLM's sampler: temperature, then min-p,
then top-k and top-p. The noise is a pure function of seed and position, so a
request that is preempted and resumed draws the same again.
"""

from collections.abc import Callable

import numpy as np
import torch
from vllm.sampling_params import SamplingParams
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

GREEDY_BELOW = 1e-5
"""A lower temperature is greedy, as in vLLM's sampler."""

BLOCK = 64
"""Columns that are first looked at as one: on the CPU an argmax over a whole vocabulary costs six
times what the maximum alone does, and cumulative sums several times what the softmax does."""


class SamplingTable:
    """The sampling settings of up to `slots` requests.

    They are kept on the host, where it can be seen without waiting for the
    device which steps of a draw no chosen request asks for.
    """

    def __init__(self, slots: int, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._temperature = np.zeros(slots, dtype=np.float32)
        self._top_p = np.ones(slots, dtype=np.float32)
        self._top_k = np.full(slots, vocabulary, dtype=np.int32)
        self._min_p = np.zeros(slots, dtype=np.float32)
        self._seed = np.zeros(slots, dtype=np.int64)

    def load(self, slot: int, params: SamplingParams, seed: int) -> None:
        """Take a request's settings; `seed` is any 64-bit number."""
        self._temperature[slot] = params.temperature
        self._top_p[slot] = params.top_p
        some = 0 < params.top_k < self._vocabulary
        self._top_k[slot] = params.top_k if some else self._vocabulary
        self._min_p[slot] = params.min_p
        self._seed[slot] = seed

    def draw(
        self, logits: torch.Tensor, slots: np.ndarray, positions: torch.Tensor
    ) -> torch.Tensor:
        """Draw each row's next token; the device is not waited for.

        Args:
            logits: [rows, vocabulary] float32, before temperature.
            slots: [rows] int, whose settings each row has.
            positions: [rows] int64, tokens generated before this one.

        Returns:
            [rows] int64 token ids.
        """

        def bring(column: np.ndarray) -> torch.Tensor:
            return async_tensor_h2d(column, device=logits.device)

        best = _argmax(logits)
        temperature = self._temperature[slots]
        greedy = temperature < GREEDY_BELOW
        if greedy.all():
            return best
        top_k, top_p, min_p = self._top_k[slots], self._top_p[slots], self._min_p[slots]
        scaled = logits / bring(np.where(greedy, np.float32(1), temperature))[:, None]
        if min_p.any():
            scaled = _apply_min_p(scaled, bring(min_p))
        k = bring(top_k) if (top_k < self._vocabulary).any() else None
        p = bring(top_p) if (top_p < 1).any() else None
        scaled = apply_top_k_top_p(scaled, k, p)
        noise = uniform(bring(self._seed[slots]), positions)
        return torch.where(bring(greedy), best, _inverse_cdf(scaled.softmax(dim=-1), noise))


def uniform(seed: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Numbers in [0, 1) that depend on seed and position alone, float64.

    SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
    Generators, 2014), with int64 arithmetic that wraps around.
    """
    state = seed + (position + 1) * _signed(0x9E3779B97F4A7C15)
    state = (state ^ _shift(state, 30)) * _signed(0xBF58476D1CE4E5B9)
    state = (state ^ _shift(state, 27)) * _signed(0x94D049BB133111EB)
    state = state ^ _shift(state, 31)
    return _shift(state, 11).double() * 2.0**-53


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _shift(value: torch.Tensor, bits: int) -> torch.Tensor:
    """A logical shift to the right; torch's own keeps the sign."""
    return (value >> bits) & (2 ** (64 - bits) - 1)


def _apply_min_p(logits: torch.Tensor, min_p: torch.Tensor) -> torch.Tensor:
    probabilities = logits.softmax(dim=-1)
    least = probabilities.amax(dim=-1, keepdim=True) * min_p[:, None]
    return logits.masked_fill(probabilities < least, -torch.inf)


def _argmax(logits: torch.Tensor) -> torch.Tensor:
    """The first of each row's greatest logits, as in vLLM's sampler."""
    block = _in_blocks(logits, torch.amax).argmax(dim=-1)
    return block * BLOCK + _of_block(logits, block, -torch.inf).argmax(dim=-1)


def _inverse_cdf(probabilities: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    block, inside = _look_up(_in_blocks(probabilities, torch.sum), noise)
    index, _ = _look_up(_of_block(probabilities, block, 0), inside)
    return block * BLOCK + index


def _in_blocks(rows: torch.Tensor, reduce: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Each block of columns as one number; the last block may be a short one."""
    columns = rows.shape[-1]
    full = columns - columns % BLOCK
    blocks = [reduce(rows[:, :full].unflatten(-1, (-1, BLOCK)), dim=-1)]
    if full < columns:
        blocks.append(reduce(rows[:, full:], dim=-1, keepdim=True))
    return torch.cat(blocks, dim=-1)


def _of_block(rows: torch.Tensor, block: torch.Tensor, beyond: float) -> torch.Tensor:
    """[rows, BLOCK]: the columns of one block of each row, `beyond` where it is a short one."""
    columns = rows.shape[-1]
    at = block[:, None] * BLOCK + torch.arange(BLOCK, device=rows.device)
    chosen = rows.gather(-1, at.clamp(max=columns - 1))
    return chosen.masked_fill(at >= columns, beyond)


def _look_up(weights: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where `noise`, a share of each row's sum, falls: [rows] the column, and the share of it."""
    cumulative = weights.double().cumsum(dim=-1)
    total = cumulative[:, -1]
    # Under the sum even after rounding, and one that equals a cumulative sum belongs to the column
    # after it: so a column of weight 0 is never drawn.
    target = torch.minimum(noise * total, total.nextafter(torch.zeros_like(total)))[:, None]
    index = torch.searchsorted(cumulative, target, right=True)
    weight = weights.gather(-1, index).double()
    share = (target - cumulative.gather(-1, index) + weight) / weight
    return index[:, 0], share[:, 0].clamp(0, 1)
