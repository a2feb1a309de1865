"""Converts the sampling parameters of a job to vLLM's."""

from collections.abc import Mapping
from typing import Any

from proctor.server.engines.base import Sampling

SAME_NAMES = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "seed",
)
"""Sampling parameters that have the same name in vLLM."""


def sampling_options(sampling: Sampling, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of vLLM's `SamplingParams`, except structured output.

    Args:
        sampling: the sampling parameters.
        defaults: the model's own, from its generation config, which may have any of these.
    """
    options = {name: getattr(sampling, name) for name in SAME_NAMES}
    return {
        **defaults,
        **{name: value for name, value in options.items() if value is not None},
        "max_tokens": max(1, sampling.max_tokens),  # vLLM always generates at least one
        "logprobs": sampling.top_logprobs,
        "prompt_logprobs": sampling.prompt_logprobs,
        "detokenize": False,
    }
