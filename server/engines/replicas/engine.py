"""The engine over replicas: vLLM's servers elsewhere, with Proctor's logits processor."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from typing import Any

from vllm import SamplingParams
from vllm.exceptions import VLLMClientError

from proctor.budget import EMPTY_RECORD, EndReason, EngineRecord, Move
from proctor.server.engines.base import Delta, Finish, Job, ModelInfo, TokenLogprob
from proctor.server.engines.grammars.base import CheckedGrammar, GrammarChecker
from proctor.server.engines.local_model import LocalModel
from proctor.server.engines.processes.stall import StallTimeouts
from proctor.server.engines.replicas.choice import ReplicatedChoice, Segment, is_over
from proctor.server.engines.replicas.client import ReplicaClient, ReplicaFailed, ReplicaLost
from proctor.server.engines.replicas.discovery import ReplicaService, discover
from proctor.server.engines.replicas.events import ReplicaDelta, RequestFailed
from proctor.server.engines.replicas.metrics import Outcome
from proctor.server.engines.replicas.pool import NO_REPLICA, Lease, ReplicaPool
from proctor.server.engines.vllm.sampling import check_prompt_logprobs, sampling_options
from proctor.server.errors import EngineUnavailable, UnsupportedRequest

logger = logging.getLogger(__name__)

FAILED_STATUS = 500
"""The status of a request that fails in its stream."""

BROKEN_STATUS = 502
"""The status of a request whose connection breaks."""


class ReplicaEngine:
    """An engine over replicas: one request per choice, whatever its continuations."""

    def __init__(
        self,
        local: LocalModel,
        service: ReplicaService,
        name: str,
        pool: Callable[[], ReplicaPool],
        grammars: GrammarChecker,
        salt: Callable[[str], str],
    ) -> None:
        """Initialize the engine.

        Args:
            local: the local parts of the model.
            service: what the replicas serve.
            name: the model's name for clients of the gateway.
            pool: returns the pool of replicas, which belongs to an event loop.
            grammars: checks grammars before the replicas compile them.
            salt: returns the salt of an owner's prefixes in the caches; empty for none.
        """
        self._local = local
        self._new_pool = pool
        self._pool: ReplicaPool | None = None
        self._grammars = grammars
        self._salt = salt
        self._api = service.api
        self._records: dict[str, EngineRecord] = {}
        self._running: dict[str, tuple[ReplicatedChoice, str, ReplicaClient]] = {}
        self.model = ModelInfo(
            name, service.context_length, local.markers, int(time.time()), local.vocabulary
        )
        self.codec = local.codec
        self.tools = local.tools

    @classmethod
    def load(
        cls,
        local: LocalModel,
        urls: Sequence[str],
        api_key: str,
        *,
        name: str,
        known_as: Collection[str],
        context_length: int | None,
        grammars: Callable[[Any], GrammarChecker],
        salt: Callable[[str], str],
    ) -> "ReplicaEngine":
        """Wait for a first replica and return the engine.

        Args:
            local: the local parts of the model.
            urls: where the replicas are; each address that a host name resolves to is one.
            api_key: their bearer token; empty for none.
            name: the model's name for clients of the gateway.
            known_as: the names that the model may have there, if a replica lists several.
            context_length: the model's context there, where it is not reported.
            grammars: returns the grammar checker for a configuration of vLLM.
            salt: returns the salt of an owner's prefixes in the caches; empty for none.

        Raises:
            ValueError: if the replica serves another model, or cannot keep budgets.
        """
        service = asyncio.run(discover(urls, api_key, local, known_as, context_length))
        with contextlib.ExitStack() as undo:
            checker = grammars(local.config)
            undo.callback(checker.close)
            checker.wait()
            undo.pop_all()

        def pool() -> ReplicaPool:
            return ReplicaPool(urls, api_key, service.identity, model=name)

        return cls(local, service, name, pool, checker, salt)

    async def check(self, job: Job) -> None:
        self._api.check(job)
        await self._grammar(job)
        check_prompt_logprobs(job, self.codec.vocabulary_size)
        config = self._local.config
        try:
            params = sampling_options(job.sampling, self._local.defaults)
            SamplingParams(**params).verify(
                config.model_config, None, config.structured_outputs_config, None
            )
        except (VLLMClientError, ValueError) as error:
            field = getattr(error, "parameter", None) or ""
            field = "top_logprobs" if field == "logprobs" else field
            raise UnsupportedRequest(field, Exception.__str__(error)) from error

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """Generate one choice, on another replica from where the first one was lost.

        Raises:
            EngineUnavailable: if no replica can continue.
            UnsupportedRequest: if a replica rejects the request.
        """
        grammar = await self._grammar(job)
        choice = ReplicatedChoice(job)
        lost: list[str] = []
        try:
            while True:
                segment = choice.next_segment()
                await self._pooled.wait(lost)
                try:
                    async with aclosing(self._segment(choice, segment, grammar, lost)) as events:
                        async for event in events:
                            yield choice.push(event)
                    return
                except (ReplicaLost, ReplicaFailed) as error:
                    if not choice.may_continue():
                        self._pooled.metrics.record_loss(Outcome.FAILED)
                        raise
                    outcome = Outcome.RESUMED if choice.begun else Outcome.RETRIED
                    self._pooled.metrics.record_loss(outcome)
                    logger.warning("%s: continuing elsewhere", error)
        finally:
            self._records[job.id] = choice.record

    async def _segment(
        self,
        choice: ReplicatedChoice,
        segment: Segment,
        grammar: CheckedGrammar | None,
        lost: list[str],
    ) -> AsyncGenerator[ReplicaDelta, None]:
        """Generate a part of a choice on one replica; if that fails, add its name to `lost`."""
        job = segment.job
        with self._pooled.lease(job, segment.prompt_ids, segment.max_tokens, lost) as lease:
            try:
                prompt_logprobs = await self._prompt_logprobs(segment, lease)
                if not job.sampling.max_tokens:
                    yield ReplicaDelta(Delta((), Finish.LENGTH, (), None, prompt_logprobs))
                    return
                body = self._api.stream(segment, grammar, self._salt(job.owner))
                reader = self._api.reader(segment)
                self._running[job.id] = choice, segment.key, lease.client
                stream = lease.client.stream(self._api.path, body, job.headers, reader)
                async with aclosing(stream) as events:
                    async for event in events:
                        lease.progress(len(event.delta.token_ids))
                        if event.delta.finish is Finish.ABORT:
                            raise ReplicaLost("a replica gave the request up")
                        if prompt_logprobs is not None:
                            delta = event.delta._replace(prompt_logprobs=prompt_logprobs)
                            event, prompt_logprobs = event._replace(delta=delta), None
                        yield event
                        if is_over(event.delta):
                            lease.finish()
            except ReplicaLost as error:
                lost.append(lease.name)
                if error.refused:
                    self._pooled.report_lost(lease.name, str(error))
                else:
                    lease.fail(BROKEN_STATUS)
                raise
            except ReplicaFailed as error:
                lost.append(lease.name)
                lease.fail(error.status)
                raise
            except RequestFailed as error:
                if job.sampling.constraint is not None:
                    field = job.sampling.constraint.field
                    raise UnsupportedRequest(
                        field, f"the engine cannot enforce '{field}'"
                    ) from error
                # Most likely, the replica's engine has died, and its server not yet.
                lost.append(lease.name)
                lease.fail(FAILED_STATUS)
                raise ReplicaFailed(str(error), FAILED_STATUS) from error
            finally:
                self._running.pop(job.id, None)

    async def _prompt_logprobs(
        self, segment: Segment, lease: Lease
    ) -> Sequence[TokenLogprob] | None:
        """Return the log probabilities of the prompt, which streams do not have."""
        job, count = segment.job, segment.job.sampling.prompt_logprobs
        if count is None:
            return None
        body = self._api.prompt_logprobs(segment, self._salt(job.owner))
        response = await lease.client.generate(self._api.path, body, job.headers)
        # In a thread: there can be thousands, and they must not block streams.
        return await asyncio.to_thread(
            self._api.read_prompt_logprobs, response, job.prompt_ids, count
        )

    async def move_maximum(
        self, job: Job, target: int | None, reason: EndReason | None = None
    ) -> Move | None:
        """Move the maximum on the replica that generates the job.

        Raises:
            EngineUnavailable: if that replica cannot be reached.
        """
        if job.id not in self._running:
            return None
        choice, key, client = self._running[job.id]
        move = await client.move_maximum(key, target, reason)
        if move is not None:
            choice.note_move(move)
        return move

    async def record(self, job: Job) -> EngineRecord:
        return self._records.pop(job.id, EMPTY_RECORD)

    async def health(self) -> None:
        if not self._pooled.usable:
            raise EngineUnavailable(NO_REPLICA)

    async def warm_up(self) -> None:
        """Look for the replicas, and wait until one of them has answered."""
        pool = self._pool = self._new_pool()
        await pool.start()

    async def heartbeat(self, timeouts: StallTimeouts) -> None:
        """Return if the pool probes the replicas, which restart by themselves.

        Raises:
            EngineUnavailable: if it has stopped to.
        """
        self._pooled.check_tasks()

    async def kill(self) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await asyncio.to_thread(self._grammars.close)
        if self._pool is not None:
            await self._pool.aclose()

    @property
    def _pooled(self) -> ReplicaPool:
        if self._pool is None:
            raise EngineUnavailable("the engine has not started")
        return self._pool

    async def _grammar(self, job: Job) -> CheckedGrammar | None:
        constraint = job.sampling.constraint
        return None if constraint is None else await self._grammars.check(constraint, job.owner)
