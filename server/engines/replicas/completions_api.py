"""The endpoint `/v1/completions`: passes through routers that know OpenAI's API only.

Its tokens come with their text, which is of no use here, and it has no place for all that
`/inference/v1/generate` has: see `CompletionsApi.check`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from proctor.budget.processors.params import KEY
from proctor.server.engines.base import Job, TokenLogprob
from proctor.server.engines.grammars.base import CheckedGrammar
from proctor.server.engines.replicas.choice import Segment
from proctor.server.engines.replicas.events import EventReader, to_prompt_logprobs
from proctor.server.engines.replicas.generate_api import engine_budget
from proctor.server.engines.vllm.sampling import sampling_options
from proctor.server.errors import UnsupportedRequest

UNSENT = ("detokenize", "prompt_logprobs")
ID_PREFIX = "token_id:"
"""How vLLM spells a token instead of its text, if asked for it."""


class CompletionsApi:
    """Writes requests to `/v1/completions`, and reads their streams."""

    path = "/v1/completions"

    def __init__(self, model: str, defaults: Mapping[str, Any], *, records_attempts: bool) -> None:
        """Create a writer.

        Args:
            model: the model's name on the replicas.
            defaults: its default sampling parameters, by vLLM's names.
            records_attempts: whether streams have the record of attempts.
        """
        self._model = model
        self._defaults = defaults
        self._records_attempts = records_attempts

    def check(self, job: Job) -> None:
        """Return if the endpoint can do what a job needs.

        A minimum is counted exactly only with the record of attempts, which Proctor's plugin adds
        to the stream. A grammar would apply to the thinking too.

        Raises:
            UnsupportedRequest: if it cannot.
        """
        budget = job.budget
        if budget.demands_thinking and not self._records_attempts:
            field = "min_thinking_tokens" if budget.minimum else "thinking.continuations"
            raise UnsupportedRequest(
                field,
                f"'{field}' requires Proctor's plugin on the replicas (VLLM_PLUGINS=proctor): "
                "leave it out, or start them with 'proctor replica'",
            )
        if job.moved_for:
            raise UnsupportedRequest(
                job.moved_for,
                f"'{job.moved_for}' is not supported over '{self.path}' of replicas, where a "
                "running request cannot be reached: leave it out",
            )
        if job.sampling.constraint is not None:
            field = job.sampling.constraint.field
            raise UnsupportedRequest(
                field, f"'{field}' is not supported over '{self.path}' of replicas: leave it out"
            )

    def stream(self, segment: Segment, grammar: CheckedGrammar | None, salt: str) -> bytes:
        options = sampling_options(segment.job.sampling, self._defaults)
        options["max_tokens"] = segment.max_tokens
        budget = engine_budget(segment).to_extra_args()[KEY]
        return self._write(
            segment,
            salt,
            **{name: value for name, value in options.items() if name not in UNSENT},
            vllm_xargs={KEY: json.dumps(budget)},
            return_token_ids=True,
            return_tokens_as_token_ids=True,
            stream=True,
            stream_options={"include_usage": True},
        )

    def prompt_logprobs(self, segment: Segment, salt: str) -> bytes:
        return self._write(
            segment,
            salt,
            max_tokens=1,
            prompt_logprobs=segment.job.sampling.prompt_logprobs,
            stream=False,
        )

    def read_prompt_logprobs(
        self, response: bytes, prompt_ids: Sequence[int], count: int
    ) -> list[TokenLogprob]:
        (choice,) = orjson.loads(response)["choices"]
        return to_prompt_logprobs(choice["prompt_logprobs"], prompt_ids, count)

    def reader(self, segment: Segment) -> EventReader:
        return EventReader(segment.job.sampling.top_logprobs, read_logprobs)

    def _write(self, segment: Segment, salt: str, **fields: Any) -> bytes:
        body = {
            **fields,
            "model": self._model,
            "prompt": segment.prompt_ids,
            "priority": segment.job.priority,
            **({"cache_salt": salt} if salt else {}),
        }
        return orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)


def read_logprobs(choice: Mapping[str, Any], count: int) -> list[TokenLogprob]:
    """Return the log probabilities of a choice's tokens in an event."""
    logprobs = choice["logprobs"]
    positions = zip(
        choice["token_ids"] or (), logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    )
    return [
        TokenLogprob(token, logprob, _top(top or {})[:count]) for token, logprob, top in positions
    ]


def _top(by_token: Mapping[str, float]) -> tuple[tuple[int, float], ...]:
    """Return the ids and log probabilities of tokens, in descending order."""
    ranked = sorted(by_token.items(), key=lambda item: -item[1])
    return tuple((int(token.removeprefix(ID_PREFIX)), logprob) for token, logprob in ranked)
