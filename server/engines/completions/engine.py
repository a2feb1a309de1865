"""Budgets over any completions server: s1's loop of stopping and asking again, behind the seam."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from dataclasses import fields
from typing import Any

from proctor.server.engines.base import Delta, Job, ModelInfo, Sampling
from proctor.server.engines.completions.discovery import LocalModel, Service, discover
from proctor.server.engines.completions.resubmit import ResubmitLoop, ResubmitStep
from proctor.server.engines.completions.upstream import Upstream
from proctor.server.engines.processes.stall import Patience
from proctor.server.engines.tool_calls import ToolFormat
from proctor.server.errors import UnsupportedRequest

TRUSTED_SECONDS = 1.0
"""So long the server's word that it is well stands: every request asks for it."""

BARRED = -100
"""`logit_bias` of a token that must not be sampled."""

NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
"""Sampling from the model as it is: servers differ in what they do where nothing is asked."""

PASSED_ON = frozenset(NEUTRAL)
OF_THE_MODEL = PASSED_ON | {"repetition_penalty"}

NO_EFFECT: dict[str, Any] = {
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "logit_bias": {},
    "logprobs": None,
    "prompt_logprobs": None,
    "min_tokens": 0,
}
"""What rounds cannot keep to, a round knowing nothing of those before it; here it does nothing."""


class CompletionsEngine:
    """Keeps budgets by rounds of completions from a server that knows none."""

    def __init__(self, upstream: Upstream, service: Service, local: LocalModel, name: str) -> None:
        self._upstream = upstream
        self._service = service
        self._defaults = NEUTRAL | {
            key: value for key, value in local.defaults.items() if key in OF_THE_MODEL
        }
        self._attempts: dict[str, frozenset[int]] = {}
        self._well_until = 0.0
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
        """Find out what a server offers; blocks until it is up.

        Args:
            connect: makes a client of the server.
            local: the model that it should have.
            name: what our clients call the model.
            known_as: what the server may call it, if it has several.
            context_length: of the model there, for servers that do not say.

        Raises:
            ValueError: if it does not have the model, or budgets cannot be kept there.
            Refused: if it does not let us in.
        """

        async def look() -> Service:
            async with aclosing(connect()) as upstream:
                return await discover(upstream, local, known_as, context_length)

        # A connection belongs to the event loop that made it, and this one ends here.
        return cls(connect(), asyncio.run(look()), local, name)

    async def check(self, job: Job, owner: str) -> None:
        """See `Engine`."""
        sampling = job.sampling
        asked = {
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "repetition_penalty": sampling.repetition_penalty,
            "logit_bias": sampling.logit_bias,
            "logprobs": sampling.top_logprobs,
            "prompt_logprobs": sampling.prompt_logprobs,
            "min_tokens": job.budget.answer_minimum,
        }
        unserved = [name for name, value in asked.items() if value not in (None, NO_EFFECT[name])]
        if sampling.constraint is not None:
            unserved.append(sampling.constraint.field)
        for name in unserved:
            raise UnsupportedRequest(
                name, f"'{name}' cannot be honoured over a completions server: leave it out"
            )

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """See `Engine`.

        Raises:
            DesyncError: if the server does not keep to what it was asked for.
            Refused: if the server will not take a round.
        """
        rounds = ResubmitLoop(job, self.model)
        try:
            while asked := rounds.plan():
                if forced := rounds.settle():
                    yield Delta(forced)
                async with aclosing(self._run(asked, job, rounds)) as deltas:
                    async for delta in deltas:
                        yield delta
            yield Delta(rounds.settle(), rounds.finish)
        finally:
            if rounds.attempts:
                self._attempts[job.id] = frozenset(rounds.attempts)

    async def attempts(self, job: Job) -> frozenset[int]:
        """See `Engine`."""
        return self._attempts.pop(job.id, frozenset())

    async def health(self) -> None:
        """See `Engine`."""
        if time.monotonic() < self._well_until:
            return
        await self._upstream.check()
        self._well_until = time.monotonic() + TRUSTED_SECONDS

    async def warm_up(self) -> None:
        """See `Engine`. What runs elsewhere serves others already."""

    async def heartbeat(self, patience: Patience) -> None:
        """See `Engine`. What runs elsewhere is not ours to start again."""

    async def kill(self) -> None:
        """See `Engine`."""
        await self.aclose()

    async def aclose(self) -> None:
        """See `Engine`."""
        await self._upstream.aclose()

    async def _run(
        self, asked: ResubmitStep, job: Job, rounds: ResubmitLoop
    ) -> AsyncGenerator[Delta, None]:
        """One round, from the request to where the budget or the server ends it."""
        reader = self._service.dialect.reader(asked)
        over = False
        async with aclosing(self._upstream.complete(self._body(asked, job))) as pieces:
            async for piece in pieces:
                over = over or not rounds.take(reader.read(piece))
                if piece.finish and not over:
                    rounds.end(stopped=piece.finish == "stop")
                    over = True
                if certain := rounds.settle():
                    yield Delta(certain)
                # A server that is done is read to its end, so that its connection is kept.
                if over and not piece.finish:
                    return

    def _body(self, asked: ResubmitStep, job: Job) -> dict[str, Any]:
        given = _given(job.sampling)
        body: dict[str, Any] = {
            "model": self._service.model,
            "prompt": asked.prompt_ids,
            "stream": True,
            **self._defaults,
            **{key: given[key] for key in PASSED_ON & given.keys()},
            **self._service.dialect.fields(asked),
        }
        if job.sampling.seed is not None:
            body["seed"] = seed_at(job.sampling.seed, asked.position)
        if asked.barred:
            body["logit_bias"] = {str(token): BARRED for token in asked.barred}
        return body


def seed_at(seed: int, position: int) -> int:
    """A seed of its own for a round that begins at `position`, 31 bits.

    With the same seed in each round the noise of the first would come again.
    """
    digest = hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def _given(sampling: Sampling) -> dict[str, Any]:
    """What a job asks for beyond the defaults."""
    return {
        field.name: value
        for field in fields(sampling)
        if (value := getattr(sampling, field.name)) != field.default
    }
