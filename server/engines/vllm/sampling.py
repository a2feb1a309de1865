"""Converts the sampling parameters of a job to vLLM's."""

from collections.abc import Mapping
from typing import Any

from proctor.server.engines.base import Job, Sampling
from proctor.server.errors import UnsupportedRequest

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

MAX_PROMPT_LOGITS = 2**29
"""Maximum number of logits for the log probabilities of one prompt: vLLM holds those of all tokens
at once, as two copies of 32-bit floats."""


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


def check_priority(job: Job, by_priority: bool) -> None:
    """Reject priorities that would have no effect.

    Args:
        job: the job.
        by_priority: whether the engine schedules by priority.

    Raises:
        UnsupportedRequest: if the job has one, and the engine does not.
    """
    if job.priority and not by_priority:
        raise UnsupportedRequest(
            "priority",
            "'priority' requires an engine whose scheduling_policy is 'priority': leave it out",
        )


def check_prompt_logprobs(job: Job, vocabulary_size: int) -> None:
    """Reject prompts whose log probabilities would take too much memory.

    Raises:
        UnsupportedRequest: if the prompt is too long for them.
    """
    max_tokens = MAX_PROMPT_LOGITS // vocabulary_size
    if job.sampling.prompt_logprobs is not None and len(job.prompt_ids) > max_tokens:
        raise UnsupportedRequest(
            "prompt_logprobs",
            f"'prompt_logprobs' is only supported for prompts of at most {max_tokens} tokens, and "
            f"this one has {len(job.prompt_ids)}",
        )
