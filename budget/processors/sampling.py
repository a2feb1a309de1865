"""What the sampler would have drawn: a row's next token under its own settings.

An attempt to close the thinking is known only once a token is drawn, and by
then it stands in the sequence. So rows whose attempt would be turned down are
drawn here instead, by the same law as vLLM's sampler: temperature, then min-p,
then top-k and top-p. The noise is a pure function of seed and position, so a
request that is preempted and resumed draws the same again.
"""

from dataclasses import dataclass

import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

GREEDY_BELOW = 1e-5
"""A lower temperature is greedy, as in vLLM's sampler."""


@dataclass(frozen=True, slots=True)
class SamplingTable:
    """The sampling settings of every slot, each of shape [slots].

    Attributes:
        temperature: float32; under `GREEDY_BELOW` the argmax is taken.
        top_p: float32, 1 for all.
        top_k: int64, the size of the vocabulary for all.
        min_p: float32, 0 for none.
        seed: int64.
    """

    temperature: torch.Tensor
    top_p: torch.Tensor
    top_k: torch.Tensor
    min_p: torch.Tensor
    seed: torch.Tensor

    @classmethod
    def empty(cls, slots: int, device: torch.device) -> "SamplingTable":
        """Settings for `slots` slots, all greedy."""

        def column(dtype: torch.dtype) -> torch.Tensor:
            return torch.zeros(slots, dtype=dtype, device=device)

        return cls(
            temperature=column(torch.float32),
            top_p=column(torch.float32),
            top_k=column(torch.int64),
            min_p=column(torch.float32),
            seed=column(torch.int64),
        )

    def load(self, slot: int, params: SamplingParams, vocabulary: int, seed: int) -> None:
        """Take a request's settings; `seed` is any 64-bit number."""
        self.temperature[slot] = params.temperature
        self.top_p[slot] = params.top_p
        self.top_k[slot] = params.top_k if 0 < params.top_k < vocabulary else vocabulary
        self.min_p[slot] = params.min_p
        self.seed[slot] = seed

    def draw(
        self, logits: torch.Tensor, slots: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """Draw each row's next token.

        Args:
            logits: [rows, vocabulary] float32, before temperature.
            slots: [rows] int64, whose settings each row has.
            positions: [rows] int64, tokens generated before this one.

        Returns:
            [rows] int64 token ids.
        """
        temperature = self.temperature[slots]
        greedy = temperature < GREEDY_BELOW
        best = logits.argmax(dim=-1)
        scaled = logits / torch.where(greedy, 1.0, temperature)[:, None]
        scaled = _apply_min_p(scaled, self.min_p[slots])
        scaled = apply_top_k_top_p(scaled, self.top_k[slots], self.top_p[slots])
        drawn = _inverse_cdf(scaled.softmax(dim=-1), uniform(self.seed[slots], positions))
        return torch.where(greedy, best, drawn)


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


def _inverse_cdf(probabilities: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    cumulative = probabilities.double().cumsum(dim=-1)
    target = noise[:, None] * cumulative[:, -1:]
    # A target equal to a cumulative sum belongs to the token after it, so that
    # noise of exactly 0 cannot draw a token of probability 0.
    index = torch.searchsorted(cumulative, target, right=True)[:, 0]
    return index.clamp(max=probabilities.shape[-1] - 1)
