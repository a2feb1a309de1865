"""The engine over a completions server: enforces budgets by s1's loop of stop and resubmit."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from dataclasses import fields
from typing import Any

from proctor.budget import EMPTY_RECORD, EndReason, EngineRecord, Move
from proctor.server.engines.base import Delta, Job, ModelInfo, Sampling
from proctor.server.engines.completions.discovery import Service, discover
from proctor.server.engines.completions.resubmit import ResubmitLoop, ResubmitStep
from proctor.server.engines.completions.upstream import Upstream
from proctor.server.engines.local_model import LocalModel
from proctor.server.engines.processes.stall import StallTimeouts
from proctor.server.engines.tool_calls import ToolFormat
from proctor.server.errors import UnsupportedRequest

HEALTH_CACHE_SECONDS = 1.0
"""How long a successful health check is cached: every request makes one."""

BANNING_BIAS = -100
"""The `logit_bias` that prevents a token from being sampled."""

NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
"""Unmodified sampling. Sent explicitly, as the defaults of servers differ."""

FORWARDED = frozenset(NEUTRAL)
MODEL_DEFAULTS = FORWARDED | {"repetition_penalty"}

NO_EFFECT: dict[str, Any] = {
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "logit_bias": {},
    "logprobs": None,
    "prompt_logprobs": None,
    "min_tokens": 0,
    "priority": 0,
}
"""Parameters that are not supported, with the values that have no effect. Penalties, biases and
minimums depend on all tokens of a choice, and the server sees each step as a new request."""


class CompletionsEngine:
    """An engine that enforces budgets over a completions server without support for them."""

    def __init__(
        self,
        upstream: Upstream,
        service: Service,
        local: LocalModel,
        name: str,
        *,
        health_cache_seconds: float = HEALTH_CACHE_SECONDS,
    ) -> None:
        """Initialize the engine.

        Args:
            upstream: the client of the server.
            service: the server's capabilities.
            local: the model that the server runs.
            name: the model's name for clients of the gateway.
            health_cache_seconds: how long a successful health check is valid.
        """
        self._upstream = upstream
        self._service = service
        self._defaults = NEUTRAL | {
            key: value for key, value in local.defaults.items() if key in MODEL_DEFAULTS
        }
        self._records: dict[str, EngineRecord] = {}
        self._loops: dict[str, ResubmitLoop] = {}
        self._health_cache_seconds = health_cache_seconds
        self._healthy_until = 0.0
        self.model = ModelInfo(
            name, service.context_length, local.markers, int(time.time()), local.vocabulary
        )
        self.codec = local.codec
        self.tools: ToolFormat | None = local.tools

    @classmethod
    def load(
        cls,
        connect: Callable[[], Upstream],
        local: LocalModel,
        *,
        name: str,
        known_as: Collection[str],
        context_length: int | None,
    ) -> "CompletionsEngine":
        """Discover a server's capabilities and return an engine; block until the server is up.

        Args:
            connect: returns a client of the server.
            local: the model that it should serve.
            name: the model's name for clients of the gateway.
            known_as: the names that the model may have there, if the server lists several.
            context_length: the model's context there, for servers that do not report it.

        Raises:
            ValueError: if it does not serve the model, or budgets cannot be enforced over it.
            UpstreamError: if it rejects the API key or the request.
        """

        async def connect_and_discover() -> Service:
            async with aclosing(connect()) as upstream:
                return await discover(upstream, local, known_as, context_length)

        # A second client: connections are tied to their event loop, and this loop ends here.
        return cls(connect(), asyncio.run(connect_and_discover()), local, name)

    async def check(self, job: Job) -> None:
        sampling = job.sampling
        options = {
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "repetition_penalty": sampling.repetition_penalty,
            "logit_bias": sampling.logit_bias,
            "logprobs": sampling.top_logprobs,
            "prompt_logprobs": sampling.prompt_logprobs,
            "min_tokens": job.budget.answer_minimum,
            "priority": job.priority,
        }
        unsupported = [
            name for name, value in options.items() if value not in (None, NO_EFFECT[name])
        ]
        if sampling.constraint is not None:
            unsupported.append(sampling.constraint.field)
        if job.confidence is not None:
            unsupported.append("thinking.early_exit.method")
        for name in unsupported:
            raise UnsupportedRequest(
                name, f"'{name}' is not supported over a completions server: leave it out"
            )

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """Generate one choice in as many completions as its budget needs.

        Raises:
            EngineUnavailable: if the server cannot be reached or fails.
            DesyncError: if the server does not respect the parameters of a completion.
            UpstreamError: if the server rejects a completion.
        """
        loop = self._loops[job.id] = ResubmitLoop(job, self.model)
        try:
            while step := loop.next_step():
                if forced := loop.pop_final_tokens():
                    yield Delta(forced)
                async with aclosing(self._run(step, job, loop)) as deltas:
                    async for delta in deltas:
                        yield delta
            yield Delta(loop.pop_final_tokens(), loop.finish)
        finally:
            del self._loops[job.id]
            if loop.record != EMPTY_RECORD:
                self._records[job.id] = loop.record

    async def move_maximum(
        self, job: Job, target: int | None, reason: EndReason | None = None
    ) -> Move | None:
        loop = self._loops.get(job.id)
        return None if loop is None else loop.move_maximum(target, reason)

    async def record(self, job: Job) -> EngineRecord:
        return self._records.pop(job.id, EMPTY_RECORD)

    async def health(self) -> None:
        if time.monotonic() < self._healthy_until:
            return
        await self._upstream.check()
        self._healthy_until = time.monotonic() + self._health_cache_seconds

    async def warm_up(self) -> None:
        """Do nothing: the server warms itself up."""

    async def heartbeat(self, timeouts: StallTimeouts) -> None:
        """Do nothing: the server cannot be restarted from here."""

    async def kill(self) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._upstream.aclose()

    async def _run(
        self, step: ResubmitStep, job: Job, loop: ResubmitLoop
    ) -> AsyncGenerator[Delta, None]:
        """Stream one completion until the budget or the server ends it."""
        reader = self._service.dialect.reader(step)
        is_over = False
        async with aclosing(self._upstream.complete(self._body(step, job))) as events:
            async for event in events:
                is_over = is_over or not loop.push(reader.read(event))
                if event.finish and not is_over:
                    loop.end_step(stopped=event.finish == "stop")
                    is_over = True
                if token_ids := loop.pop_final_tokens():
                    yield Delta(token_ids)
                # After a finish reason, read to the end, so that the connection can be reused.
                if is_over and not event.finish:
                    return

    def _body(self, step: ResubmitStep, job: Job) -> dict[str, Any]:
        options = _non_default(job.sampling)
        body: dict[str, Any] = {
            "model": self._service.model,
            "prompt": step.prompt_ids,
            "stream": True,
            **self._defaults,
            **{key: options[key] for key in FORWARDED & options.keys()},
            **self._service.dialect.fields(step),
        }
        if job.sampling.seed is not None:
            body["seed"] = seed_at(job.sampling.seed, step.position)
        if step.barred:
            body["logit_bias"] = {str(token): BANNING_BIAS for token in step.barred}
        return body


def seed_at(seed: int, position: int) -> int:
    """Return the seed for the step that begins at `position`, a number of 31 bits.

    The same seed in each step would repeat the random numbers of the first.
    """
    digest = hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def _non_default(sampling: Sampling) -> dict[str, Any]:
    return {
        field.name: value
        for field in fields(sampling)
        if (value := getattr(sampling, field.name)) != field.default
    }
