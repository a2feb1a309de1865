"""The endpoint `/inference/v1/generate`: token ids in, token ids out."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from proctor.budget import Markers
from proctor.budget.processors.params import SLOW, EngineBudget
from proctor.budget.processors.structured_outputs.checked_params import BACKEND
from proctor.budget.processors.structured_outputs.reasoning_parser import parser_arguments
from proctor.server.engines.base import Job, TokenLogprob
from proctor.server.engines.grammars.base import CheckedGrammar
from proctor.server.engines.replicas.choice import Segment
from proctor.server.engines.replicas.events import (
    EventReader,
    read_logprobs,
    to_prompt_logprobs,
)
from proctor.server.engines.vllm.sampling import check_priority, sampling_options

UNSENT = ("_backend", "_backend_was_auto")
"""Fields of vLLM's `StructuredOutputsParams` that requests must not have."""


class GenerateApi:
    """Writes requests to `/inference/v1/generate`, and reads their streams."""

    path = "/inference/v1/generate"

    def __init__(
        self,
        model: str,
        markers: Markers,
        defaults: Mapping[str, Any],
        *,
        by_priority: bool,
    ) -> None:
        """Create a writer.

        Args:
            model: the model's name on the replicas.
            markers: its thinking markers.
            defaults: its default sampling parameters, by vLLM's names.
            by_priority: whether requests may have priorities.
        """
        self._model = model
        self._defaults = defaults
        self._by_priority = by_priority
        self._parser_arguments = parser_arguments(markers)

    def check(self, job: Job) -> None:
        """Return if the endpoint can do what a job needs: all that the embedded engine can.

        Raises:
            UnsupportedRequest: if the job has a priority, and the replicas do not heed it.
        """
        check_priority(job, self._by_priority)

    def read_prompt_logprobs(
        self, response: bytes, prompt_ids: Sequence[int], count: int
    ) -> list[TokenLogprob]:
        return to_prompt_logprobs(orjson.loads(response)["prompt_logprobs"], prompt_ids, count)

    def reader(self, segment: Segment) -> EventReader:
        return EventReader(segment.job.sampling.top_logprobs, read_logprobs)

    def stream(self, segment: Segment, grammar: CheckedGrammar | None, salt: str) -> bytes:
        job = segment.job
        params = sampling_options(job.sampling, self._defaults)
        params |= {"max_tokens": segment.max_tokens, "prompt_logprobs": None}
        if params["logprobs"]:
            # vLLM cuts the list that has the sampled token first, likely or not.
            params["logprobs"] += 1
        extra = engine_budget(segment).to_extra_args()
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
        params = {
            "max_tokens": 1,
            "prompt_logprobs": segment.job.sampling.prompt_logprobs,
            "detokenize": False,
        }
        return self._write(segment, params, salt, stream=False)

    def _write(
        self, segment: Segment, params: Mapping[str, Any], salt: str, **options: Any
    ) -> bytes:
        job = segment.job
        body = {
            "model": self._model,
            "token_ids": segment.prompt_ids,
            "sampling_params": params,
            "priority": job.priority,
            "reasoning_ended": not (job.budget.opened or job.budget.begins_with_marker),
            "reasoning_parser_kwargs": self._parser_arguments,
            **({"cache_salt": salt} if salt else {}),
            **options,
        }
        return orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)


def engine_budget(segment: Segment) -> EngineBudget:
    """Return the budget of a segment for the replica's processor."""
    job = segment.job
    seed = secrets.randbits(63) if job.sampling.seed is None else job.sampling.seed
    return EngineBudget(
        segment.key,
        seed,
        job.budget,
        len(segment.tokens),
        segment.record,
        movable=bool(job.moved_for),
        confidence=job.confidence,
    )
