"""Writes the body of a request to `/inference/v1/generate`."""

import secrets
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import orjson

from proctor.budget import Markers
from proctor.budget.processors.params import SLOW, EngineBudget
from proctor.budget.processors.structured_outputs.checked_params import BACKEND
from proctor.budget.processors.structured_outputs.reasoning_parser import parser_arguments
from proctor.server.engines.grammars.base import CheckedGrammar
from proctor.server.engines.replicas.choice import Segment
from proctor.server.engines.vllm.sampling import sampling_options

UNSENT = ("_backend", "_backend_was_auto")
"""Fields of vLLM's `StructuredOutputsParams` that requests must not have."""


class GenerateBody:
    """Writes the bodies of the requests for one model."""

    def __init__(self, model: str, markers: Markers, defaults: Mapping[str, Any]) -> None:
        """Create a writer.

        Args:
            model: the model's name on the replicas.
            markers: its thinking markers.
            defaults: its default sampling parameters, by vLLM's names.
        """
        self._model = model
        self._defaults = defaults
        self._parser_arguments = parser_arguments(markers)

    def stream(self, segment: Segment, grammar: CheckedGrammar | None, salt: str) -> bytes:
        """Return the body of a request whose tokens are streamed.

        Args:
            segment: what to generate.
            grammar: the checked grammar of its constraint.
            salt: separates its prefixes from those of others in the cache; empty for none.
        """
        job = segment.job
        params = sampling_options(job.sampling, self._defaults)
        params |= {"max_tokens": segment.max_tokens, "prompt_logprobs": None}
        if params["logprobs"]:
            # vLLM cuts the list that has the sampled token first, likely or not.
            params["logprobs"] += 1
        extra = self._budget(segment)
        if grammar is not None:
            options = {name: value for name, value in vars(grammar.params).items() if value}
            extra |= {SLOW: grammar.slow, BACKEND: options["_backend"]}
            params["structured_outputs"] = {
                name: value for name, value in options.items() if name not in UNSENT
            }
        return self._write(
            segment,
            {**params, "extra_args": extra},
            salt,
            stream=True,
            stream_options={"include_usage": True},
        )

    def prompt_logprobs(self, segment: Segment, salt: str) -> bytes:
        """Return the body of a request for the log probabilities of the prompt, not streamed."""
        params = {
            "max_tokens": 1,
            "prompt_logprobs": segment.job.sampling.prompt_logprobs,
            "detokenize": False,
        }
        return self._write(segment, params, salt, stream=False)

    def _budget(self, segment: Segment) -> dict[str, Any]:
        job = segment.job
        seed = secrets.randbits(63) if job.sampling.seed is None else job.sampling.seed
        budget = EngineBudget(uuid4().hex, seed, job.budget, len(segment.tokens), segment.attempts)
        return budget.to_extra_args()

    def _write(
        self, segment: Segment, params: Mapping[str, Any], salt: str, **options: Any
    ) -> bytes:
        job = segment.job
        body = {
            "model": self._model,
            "token_ids": segment.prompt_ids,
            "sampling_params": params,
            "reasoning_ended": not (job.budget.opened or job.budget.begins_with_marker),
            "reasoning_parser_kwargs": self._parser_arguments,
            **({"cache_salt": salt} if salt else {}),
            **options,
        }
        return orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
