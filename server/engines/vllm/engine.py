"""The engine over an embedded vLLM `AsyncLLM`."""

import asyncio
import contextlib
import logging
import os
import pkgutil
import secrets
import time
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any

from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.envs import enable_envs_cache
from vllm.exceptions import VLLMClientError, VLLMValidationError
from vllm.inputs.engine import tokens_input
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.utils.gc_utils import freeze_gc_heap
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
from vllm.v1.engine.output_processor import OutputProcessor

from proctor.budget import EMPTY_RECORD, EndReason, EngineRecord, Move
from proctor.budget.processors.integration.arguments import PRIORITY, PROCESSORS
from proctor.budget.processors.integration.worker_calls import (
    call_workers,
    move_maximum,
    read_record,
)
from proctor.budget.processors.params import SLOW, EngineBudget, with_markers
from proctor.budget.processors.structured_outputs.checked_params import CheckedParams
from proctor.budget.processors.structured_outputs.reasoning_parser import parser_arguments
from proctor.budget.processors.tokenizer.marker_discovery import MarkerSource, find_markers
from proctor.budget.processors.tokenizer.vocabulary import read_vocabulary
from proctor.server.engines.base import Delta, Finish, Job, ModelInfo, Sampling, TokenLogprob
from proctor.server.engines.grammars.base import CheckedGrammar, GrammarChecker
from proctor.server.engines.processes.engine_processes import SHUTTING_DOWN, EngineProcesses
from proctor.server.engines.processes.stall import (
    StallDetector,
    Stalled,
    StallTimeouts,
    wait_unless_stalled,
)
from proctor.server.engines.tool_calls import Constraint, ToolFormat
from proctor.server.engines.vllm.codec import VllmCodec
from proctor.server.engines.vllm.config import engine_config, openmp_threads
from proctor.server.engines.vllm.core_process import starting_engine_core
from proctor.server.engines.vllm.metrics import DraftMetrics, SanitizedStatLogger
from proctor.server.engines.vllm.sampling import (
    check_priority,
    check_prompt_logprobs,
    sampling_options,
)
from proctor.server.engines.vllm.tools import VllmTools
from proctor.server.engines.warm_up import warm_up
from proctor.server.errors import EngineUnavailable, UnsupportedRequest

logger = logging.getLogger(__name__)

OUTPUT_HANDLER_SECONDS = 5.0
"""How long to wait for vLLM's output handler to fail the requests of a dead engine."""

STOPPED = "the engine stopped"

FAILED = "error"
"""vLLM's finish reason of a request that failed."""

MIN_LOGPROB = -9999.0
"""Replaces minus infinity, which JSON does not have; vLLM's server uses the same value."""


class VllmEngine:
    """An engine over `AsyncLLM`, with a logits processor that enforces budgets."""

    def __init__(
        self,
        llm: AsyncLLM,
        model: ModelInfo,
        codec: VllmCodec,
        tools: ToolFormat | None,
        grammars: GrammarChecker,
        processes: EngineProcesses,
    ) -> None:
        self._running: AsyncLLM | None = llm
        self._grammars = grammars
        self._processes = processes
        self._defaults = llm.model_config.get_diff_sampling_param()
        runner = llm.vllm_config.use_v2_model_runner
        self._processor = pkgutil.resolve_name(PROCESSORS[runner])
        self._drafts = DraftMetrics() if llm.vllm_config.speculative_config else None
        self._parser_arguments = parser_arguments(model.markers)
        self._last_check = time.monotonic()
        self._tasks: Counter[asyncio.Task[Any]] = Counter()
        self._cancelled: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.model = model
        self.codec = codec
        self.tools = tools

    @classmethod
    def load(
        cls,
        model: str,
        *,
        name: str,
        arguments: Mapping[str, Any],
        markers: MarkerSource,
        grammars: Callable[[VllmConfig], GrammarChecker],
        tool_call_parser: str | None = None,
    ) -> "VllmEngine":
        """Load a model; block until it can serve requests.

        Args:
            model: a path or a Hugging Face name.
            name: the name that clients use.
            arguments: vLLM's engine arguments, passed on unchanged.
            markers: the source of the thinking markers.
            grammars: returns the grammar checker for an engine configuration.
            tool_call_parser: the name of vLLM's tool parser, or None without tool calls.

        Raises:
            ValueError: if an argument conflicts with the enforcement of budgets, the markers
                cannot be found, or the parser does not exist.
            EngineUnavailable: if the server is shutting down.
        """
        # Of workers. Forking a process with threads is not safe, and the child would keep this
        # process's sockets open after its end.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
        config = engine_config(model, name, arguments)
        tokenizer = cached_tokenizer_from_config(config.model_config)
        texts, token_markers = find_markers(tokenizer, config.model_config, markers)
        tools = None if tool_call_parser is None else VllmTools(tool_call_parser, tokenizer)
        config.additional_config = with_markers(config.additional_config, token_markers)
        if SHUTTING_DOWN.is_set():
            raise EngineUnavailable("the server is shutting down")
        with contextlib.ExitStack() as undo:
            grammar_checker = grammars(config)
            undo.callback(grammar_checker.close)
            processes = EngineProcesses()
            with processes.starting(), starting_engine_core(openmp_threads(config)):
                llm = AsyncLLM.from_vllm_config(
                    config, enable_log_requests=False, stat_loggers=[SanitizedStatLogger]
                )
            undo.callback(llm.shutdown)
            grammar_checker.wait()
            undo.pop_all()
        info = ModelInfo(
            name,
            config.model_config.max_model_len,
            token_markers,
            int(time.time()),
            read_vocabulary(tokenizer, config.model_config.get_vocab_size()),
        )
        codec = VllmCodec(llm.renderer, texts[0])
        engine = cls(llm, info, codec, tools, grammar_checker, processes)
        # Keeps full garbage collections, which block every stream, from traversing all of vLLM.
        freeze_gc_heap()
        # vLLM otherwise parses several environment variables for each generated token.
        enable_envs_cache()
        return engine

    async def check(self, job: Job) -> None:
        check_priority(job, self._llm.vllm_config.scheduler_config.policy == PRIORITY)
        check_prompt_logprobs(job, self.codec.vocabulary_size)
        config, tokenizer = self._llm.vllm_config, self._llm.renderer.get_tokenizer()
        grammar = await self._grammar(job)
        try:
            params = self._params(job, grammar)
            self._processor.validate_params(params)
            _verify(params, config, tokenizer)
        except VLLMClientError as error:
            raise _unsupported(error, job.sampling.constraint) from error

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """Generate one choice; closing the generator aborts the request in vLLM.

        Raises:
            EngineUnavailable: if the engine cannot continue.
            UnsupportedRequest: if the engine fails to compile or follow the grammar.
        """
        grammar = await self._grammar(job)
        stream = self._llm.generate(
            tokens_input(list(job.prompt_ids)),
            self._params(job, grammar),
            job.id,
            priority=job.priority,
            reasoning_ended=not (job.budget.opened or job.budget.begins_with_marker),
            reasoning_parser_kwargs=self._parser_arguments,
        )
        try:
            with self._fail_if_killed("the engine stopped while generating"):
                async for output in stream:
                    completion = output.outputs[0]
                    reason = completion.finish_reason
                    if reason == FAILED:
                        raise _failed(job.sampling.constraint)
                    finish = Finish(reason) if reason else None
                    logprobs = _logprobs(completion, job.sampling)
                    prompt_logprobs = None
                    if output.prompt_logprobs:
                        # In a thread: there can be thousands, and they must not block streams.
                        prompt_logprobs = await asyncio.to_thread(_prompt_logprobs, job, output)
                    cached_tokens = output.num_cached_tokens
                    if not job.sampling.max_tokens:
                        yield Delta((), Finish.LENGTH, (), cached_tokens, prompt_logprobs)
                        return
                    yield Delta(
                        completion.token_ids, finish, logprobs, cached_tokens, prompt_logprobs
                    )
        finally:
            await stream.aclose()

    async def move_maximum(
        self, job: Job, target: int | None, reason: EndReason | None = None
    ) -> Move | None:
        with self._fail_if_killed():
            return await move_maximum(self._llm.engine_core, job.id, target, reason)

    async def record(self, job: Job) -> EngineRecord:
        if not job.has_record:
            return EMPTY_RECORD
        with self._fail_if_killed():
            return await read_record(self._llm.engine_core, job.id, is_over=True)

    @property
    def _llm(self) -> AsyncLLM:
        """The running engine.

        Raises:
            EngineUnavailable: if it was killed or shut down.
        """
        if self._running is None:
            raise EngineUnavailable(STOPPED)
        return self._running

    @contextlib.contextmanager
    def _fail_if_killed(self, message: str = STOPPED) -> Iterator[None]:
        """Fail the current task if the engine is killed while the body waits for it.

        vLLM notifies the requests that wait for tokens when its engine dies, but neither those
        that arrive at that moment nor other calls. `kill` cancels their tasks.

        Raises:
            EngineUnavailable: with `message`, if the engine is dead or killed.
        """
        task = asyncio.current_task()
        if self._running is None or task is None:
            raise EngineUnavailable(STOPPED)
        self._tasks[task] += 1
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._cancelled:
                raise
            task.uncancel()
            raise EngineUnavailable(message) from None
        except (EngineDeadError, EngineGenerateError):
            # Not chained: vLLM raises the same exception object in every stream, so that its
            # traceback grows with each of them.
            raise EngineUnavailable(message) from None
        finally:
            self._tasks[task] -= 1
            if not self._tasks[task]:
                del self._tasks[task]

    async def health(self) -> None:
        try:
            await self._llm.check_health()
        except EngineDeadError as error:
            raise EngineUnavailable(STOPPED) from error

    async def warm_up(self) -> None:
        await warm_up(self)

    async def heartbeat(self, timeouts: StallTimeouts) -> None:
        """Call every worker between two steps, which also checks its budget slots.

        A call wakes the worker. An idle engine is therefore only checked once per half of
        `stall_seconds`, and has the other half to respond.

        Args:
            timeouts: how long the engine may take to respond.

        Raises:
            EngineUnavailable: if it is dead, hangs, or its slots are inconsistent.
        """
        await self.health()
        now = time.monotonic()
        idle_seconds = timeouts.stall_seconds
        if self._idle:
            idle_seconds /= 2
            if now < self._last_check + idle_seconds:
                return
        self._last_check = now
        response = asyncio.ensure_future(self._check_workers())
        detector = StallDetector(idle_seconds, timeouts.busy_stall_seconds)
        try:
            await wait_unless_stalled(response, self._processes.activity, detector)
        except Stalled as error:
            raise EngineUnavailable(str(error)) from error
        finally:
            response.cancel()

    @property
    def _idle(self) -> bool:
        processor: OutputProcessor = self._llm.output_processor
        return not processor.has_unfinished_requests()

    async def _check_workers(self) -> None:
        try:
            await self._llm.collective_rpc("check_slots")
            if self._drafts is not None:
                self._drafts.update(await call_workers(self._llm.engine_core, "draft_counts"))
        except EngineUnavailable:
            raise
        except EngineDeadError as error:
            raise EngineUnavailable(STOPPED) from error
        except Exception as error:
            raise EngineUnavailable(f"the engine's check failed: {error}") from error

    async def kill(self) -> None:
        if self._running is None:
            return
        await asyncio.to_thread(self._processes.kill)
        output_handler = self._running.output_handler
        if output_handler is not None:
            # It fails the requests that wait for tokens; the other tasks are cancelled below.
            await asyncio.wait({output_handler}, timeout=OUTPUT_HANDLER_SECONDS)
        self._cancelled.update(self._tasks)
        for task in self._cancelled:
            task.cancel()
        await self.aclose()

    async def aclose(self) -> None:
        if self._running is None:
            return
        llm, self._running = self._running, None
        self.codec.close()
        await asyncio.to_thread(self._grammars.close)
        llm.shutdown()
        await asyncio.to_thread(self._processes.kill)

    async def _grammar(self, job: Job) -> CheckedGrammar | None:
        constraint = job.sampling.constraint
        return None if constraint is None else await self._grammars.check(constraint, job.owner)

    def _params(self, job: Job, grammar: CheckedGrammar | None) -> SamplingParams:
        sampling = job.sampling
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        params = sampling_options(sampling, self._defaults)
        params["output_kind"] = RequestOutputKind.DELTA
        extra = EngineBudget(
            job.id,
            seed,
            job.budget,
            movable=bool(job.moved_for),
            confidence=job.confidence,
        ).to_extra_args()
        if grammar is None:
            return SamplingParams(**params, extra_args=extra)
        return CheckedParams(
            **params,
            structured_outputs=grammar.params,
            extra_args={**extra, SLOW: grammar.slow},
        )


def _verify(params: SamplingParams, config: VllmConfig, tokenizer: Any) -> None:
    """Have vLLM validate the parameters, except structured output, see `CheckedParams`.

    Raises:
        VLLMClientError: if they are invalid.
    """
    try:
        params.verify(
            config.model_config,
            config.speculative_config,
            config.structured_outputs_config,
            tokenizer,
        )
    except VLLMClientError:
        raise
    except Exception as error:
        raise VLLMValidationError("vLLM cannot process a sampling parameter") from error


def _logprobs(completion: CompletionOutput, sampling: Sampling) -> list[TokenLogprob]:
    if sampling.top_logprobs is None or completion.logprobs is None:
        return []
    pairs = zip(completion.token_ids, completion.logprobs, strict=True)
    return [_logprob(token, by_id or {}, sampling.top_logprobs) for token, by_id in pairs]


def _prompt_logprobs(job: Job, output: RequestOutput) -> list[TokenLogprob]:
    count = job.sampling.prompt_logprobs or 0
    pairs = zip(job.prompt_ids[1:], (output.prompt_logprobs or [])[1:], strict=True)
    return [_logprob(token, by_id or {}, count) for token, by_id in pairs]


def _logprob(token: int, by_id: Mapping[int, Logprob], count: int) -> TokenLogprob:
    ranked = sorted(by_id.items(), key=lambda item: item[1].rank or 0)
    top = [(other, _finite(entry.logprob)) for other, entry in ranked[:count]]
    own = by_id[token]
    return TokenLogprob(token, _finite(own.logprob), tuple(top), own.rank or 0)


def _finite(logprob: float) -> float:
    return max(logprob, MIN_LOGPROB)


def _failed(constraint: Constraint | None) -> Exception:
    """Return the error for a single request that the engine failed."""
    if constraint is None:
        return EngineUnavailable("the engine failed this request")
    return UnsupportedRequest(constraint.field, f"the engine cannot enforce '{constraint.field}'")


def _unsupported(error: VLLMClientError, constraint: Constraint | None) -> UnsupportedRequest:
    """Return the error for a parameter that vLLM rejects, with the field's name in `Sampling`."""
    field = getattr(error, "parameter", None)
    if field is None and constraint is not None:
        field = constraint.field
    text = Exception.__str__(error)
    return UnsupportedRequest("top_logprobs" if field == "logprobs" else field or "", text)
