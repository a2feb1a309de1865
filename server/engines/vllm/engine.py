"""vLLM in this server's own process, behind the seam."""

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
from dataclasses import dataclass
from typing import Any

from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.envs import enable_envs_cache
from vllm.exceptions import VLLMClientError, VLLMValidationError
from vllm.inputs.engine import tokens_input
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.utils.gc_utils import freeze_gc_heap
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from proctor.budget.processors import reasoning
from proctor.budget.processors.marker_discovery import encode_markers, find_marker_texts
from proctor.budget.processors.params import SLOW, EngineBudget, with_markers
from proctor.budget.processors.tokenizer_vocabulary import read_vocabulary
from proctor.server.engines.base import Delta, Finish, Job, ModelInfo, Sampling, TokenLogprob
from proctor.server.engines.grammars.base import CheckedGrammar, GrammarChecker
from proctor.server.engines.processes.engine_processes import (
    SHUTTING_DOWN,
    EngineProcesses,
    child_engine_processes,
)
from proctor.server.engines.processes.stall import StallDetector, Stalled, StallTimeouts, answered
from proctor.server.engines.tool_calls import Constraint, ToolFormat
from proctor.server.engines.vllm.codec import VllmCodec
from proctor.server.engines.vllm.metrics import SanitizedStatLogger
from proctor.server.engines.vllm.tools import VllmTools
from proctor.server.engines.warm_up import warm_up
from proctor.server.errors import EngineUnavailable, UnsupportedRequest

logger = logging.getLogger(__name__)

PROCESSORS = {
    False: "proctor.budget.processors.v1:BudgetLogitsProcessor",
    True: "proctor.budget.processors.v2:BudgetLogitsProcessor",
}
"""The processor by whether vLLM uses its V2 runner."""
WORKER_EXTENSION = "proctor.budget.processors.worker.BudgetWorkerExtension"
OURS = ("logits_processors", "worker_extension_cls", "reasoning_parser")

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
"""Settings that vLLM calls as we do."""

FAREWELL_SECONDS = 5.0

STOPPED = "the engine stopped"

FAILED = "error"
"""vLLM's word for a request that it could not go on with."""

MOST_PROMPT_LOGITS = 2**29
"""Logits that the scores of one prompt may take: vLLM holds those of all its tokens at once, as
32-bit floats and twice over."""

LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON does not have; vLLM's server says the same."""


@dataclass(frozen=True, slots=True)
class MarkerSource:
    """Where to take the thinking markers from; all unset is from the chat template."""

    start: str | None = None
    end: str | None = None
    parser: str | None = None


class CheckedParams(SamplingParams):
    """Sampling parameters whose grammar has been looked through.

    vLLM would do that again when the job enters it, on the event loop.
    """

    def _validate_structured_outputs(self, *_: Any) -> None:
        pass


class VllmEngine:
    """An `AsyncLLM` whose own logits processor enforces the budgets."""

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
        self._markers = model.markers.to_wire()
        self._asked_at = time.monotonic()
        self._tasks: Counter[asyncio.Task[Any]] = Counter()
        self._left: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
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
        """Load a model; blocks until it can answer.

        Args:
            model: a path or a Hugging Face name.
            name: what clients call it.
            arguments: vLLM's engine arguments, passed on unchanged.
            markers: where its thinking markers come from.
            grammars: makes what looks its grammars through.
            tool_call_parser: vLLM's name of how it writes tool calls; None is
                that it does not.

        Raises:
            ValueError: if an argument would take the budgets out of our hands,
                the markers cannot be found, or there is no such parser.
        """
        # Budgets have not been seen on a GPU with the V2 runner, which vLLM would choose there.
        os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
        # A fork of a process with threads is not safe, and would hold this one's sockets open when
        # it is gone.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
        config = _engine_config(model, name, arguments)
        config.model_config.logits_processors = [PROCESSORS[config.use_v2_model_runner]]
        _bind_answers_alone(config, arguments)
        tokenizer = cached_tokenizer_from_config(config.model_config)
        texts = find_marker_texts(
            tokenizer, start=markers.start, end=markers.end, parser=markers.parser
        )
        tools = None if tool_call_parser is None else VllmTools(tool_call_parser, tokenizer)
        found = encode_markers(tokenizer, texts, _end_of_turn(tokenizer, config))
        config.additional_config = with_markers(config.additional_config, found)
        if SHUTTING_DOWN.is_set():
            raise EngineUnavailable("the server is about to end")
        with contextlib.ExitStack() as undo:
            checks = grammars(config)
            undo.callback(checks.close)
            processes = EngineProcesses(exclude=child_engine_processes())
            with processes.starting():
                llm = AsyncLLM.from_vllm_config(
                    config, enable_log_requests=False, stat_loggers=[SanitizedStatLogger]
                )
            undo.callback(llm.shutdown)
            checks.wait()
            undo.pop_all()
        info = ModelInfo(
            name,
            config.model_config.max_model_len,
            found,
            int(time.time()),
            read_vocabulary(tokenizer, config.model_config.get_vocab_size()),
        )
        engine = cls(llm, info, VllmCodec(llm.renderer, texts[0]), tools, checks, processes)
        # Or else each full collection looks through all of vLLM while every stream waits.
        freeze_gc_heap()
        # Or else vLLM parses several environment variables for each token that it hands out.
        enable_envs_cache()
        return engine

    async def check(self, job: Job, owner: str) -> None:
        _check_prompt_scores(job, self.codec.vocabulary_size)
        config, tokenizer = self._llm.vllm_config, self._llm.renderer.get_tokenizer()
        grammar = await self._grammar(job, owner)
        try:
            params = self._params(job, grammar)
            self._processor.validate_params(params)
            _verify(params, config, tokenizer)
        except VLLMClientError as error:
            raise _unserved(error, job.sampling.constraint) from error

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """See `Engine`.

        Raises:
            Unserved: if what the answer is bound to turns out to make no grammar.
        """
        grammar = await self._grammar(job)
        stream = self._llm.generate(
            tokens_input(list(job.prompt_ids)),
            self._params(job, grammar),
            job.id,
            reasoning_ended=not (job.budget.opened or job.budget.begins_with_marker),
            reasoning_parser_kwargs={"markers": self._markers},
        )
        try:
            with self._waiting("the engine stopped while generating"):
                async for output in stream:
                    completion = output.outputs[0]
                    reason = completion.finish_reason
                    if reason == FAILED:
                        raise _failed(job.sampling.constraint)
                    finish = Finish(reason) if reason else None
                    scores = _scores(completion, job.sampling)
                    of_prompt = None
                    if output.prompt_logprobs:
                        # Thousands of them, while other streams wait.
                        of_prompt = await asyncio.to_thread(_prompt_scores, job, output)
                    cached = output.num_cached_tokens
                    if not job.sampling.max_tokens:
                        yield Delta((), Finish.LENGTH, (), cached, of_prompt)
                        return
                    yield Delta(completion.token_ids, finish, scores, cached, of_prompt)
        finally:
            await stream.aclose()

    async def attempts(self, job: Job) -> frozenset[int]:
        if not job.budget.demands_thinking:
            return frozenset()
        with self._waiting():
            # `collective_rpc` would ask the first data-parallel engine alone.
            per_engine = await self._llm.engine_core.call_utility_all_async(
                "collective_rpc", "take_attempts", None, (job.id,), None
            )
        return frozenset(at for workers in per_engine for record in workers for at in record)

    @property
    def _llm(self) -> AsyncLLM:
        """The running engine.

        Raises:
            EngineUnavailable: if it was given up or stopped.
        """
        if self._running is None:
            raise EngineUnavailable(STOPPED)
        return self._running

    @contextlib.contextmanager
    def _waiting(self, told: str = STOPPED) -> Iterator[None]:
        """Waits for the engine, which may be given up without a word to this one.

        vLLM tells those who wait for tokens that its engine is dead, but not who
        comes in that moment, nor who waits for something else.

        Raises:
            EngineUnavailable: if it is, with the text `told`.
        """
        task = asyncio.current_task()
        if self._running is None or task is None:
            raise EngineUnavailable(STOPPED)
        self._tasks[task] += 1
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._left:
                raise
            task.uncancel()
            raise EngineUnavailable(told) from None
        except (EngineDeadError, EngineGenerateError):
            # Not chained: vLLM raises one exception in every stream, whose traceback has
            # grown by all of them each time that it is written to the log.
            raise EngineUnavailable(told) from None
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
        """See `Engine`. Asks every worker, between two steps; the books are looked over too.

        A worker spins for a second after it was asked, so one that has nothing to do
        is let alone for half of the patience, and has the other half to answer.
        """
        await self.health()
        now = time.monotonic()
        quiet = timeouts.stall_seconds
        if self._idle:
            quiet /= 2
            if now < self._asked_at + quiet:
                return
        self._asked_at = now
        asking = asyncio.ensure_future(self._ask_workers())
        detector = StallDetector(quiet, timeouts.busy_stall_seconds)
        try:
            await answered(asking, self._processes.activity, detector)
        except Stalled as error:
            raise EngineUnavailable(str(error)) from error
        finally:
            asking.cancel()

    @property
    def _idle(self) -> bool:
        return not self._llm.output_processor.has_unfinished_requests()

    async def _ask_workers(self) -> None:
        try:
            await self._llm.collective_rpc("check_slots")
        except EngineUnavailable:
            raise
        except EngineDeadError as error:
            raise EngineUnavailable(STOPPED) from error
        except Exception as error:
            raise EngineUnavailable(f"the engine is out of order: {error}") from error

    async def kill(self) -> None:
        if self._running is None:
            return
        await asyncio.to_thread(self._processes.kill)
        handler = self._running.output_handler
        if handler is not None:
            # It tells every job that the engine is dead.
            await asyncio.wait({handler}, timeout=FAREWELL_SECONDS)
        self._left.update(self._tasks)
        for task in self._left:
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

    async def _grammar(self, job: Job, owner: str = "") -> CheckedGrammar | None:
        constraint = job.sampling.constraint
        return None if constraint is None else await self._grammars.check(constraint, owner)

    def _params(self, job: Job, grammar: CheckedGrammar | None) -> SamplingParams:
        sampling = job.sampling
        asked = {name: getattr(sampling, name) for name in SAME_NAMES}
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        # The model's own defaults can hold any of these, a most number of tokens too.
        params = {
            **self._defaults,
            **{key: to for key, to in asked.items() if to is not None},
            "max_tokens": max(1, sampling.max_tokens),  # vLLM generates one at the least
            "logprobs": sampling.top_logprobs,
            "prompt_logprobs": sampling.prompt_logprobs,
            "detokenize": False,
            "output_kind": RequestOutputKind.DELTA,
        }
        extra = EngineBudget(job.id, seed, job.budget).to_extra_args()
        if grammar is None:
            return SamplingParams(**params, extra_args=extra)
        bound = {"structured_outputs": grammar.params, "extra_args": {**extra, SLOW: grammar.slow}}
        return CheckedParams(**params, **bound)


def _verify(params: SamplingParams, config: VllmConfig, tokenizer: Any) -> None:
    """Have vLLM look the parameters through; see `CheckedParams` for their grammar.

    Raises:
        VLLMClientError: if it refuses them, or fails on them.
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
        raise VLLMValidationError("vLLM cannot make anything of its value") from error


def _engine_config(model: str, name: str, arguments: Mapping[str, Any]) -> VllmConfig:
    for ours in OURS:
        if ours in arguments:
            raise ValueError(f"engine.{ours} is set by the server itself: leave it out")
    given: dict[str, Any] = {
        "model": model,
        "served_model_name": name,
        "disable_log_stats": False,
        **arguments,
    }
    # A seeded request whose prefill is split kills vLLM's CPU engine ("CPU
    # Generator does not use offset"), so no prefill is split there.
    if current_platform.is_cpu() and given.setdefault("enable_chunked_prefill", False):
        raise ValueError("engine.enable_chunked_prefill must be false on the CPU")
    given["worker_extension_cls"] = WORKER_EXTENSION
    return AsyncEngineArgs(**given).create_engine_config()


def _bind_answers_alone(config: VllmConfig, arguments: Mapping[str, Any]) -> None:
    """Have grammars hold from the end of the thinking, and JSON come without free whitespace.

    With it a model that has lost its way can break lines until its tokens run out. vLLM
    itself lets this be set only beside a named backend.
    """
    structured = config.structured_outputs_config
    structured.reasoning_parser = reasoning.NAME
    structured.reasoning_parser_plugin = reasoning.__name__
    if "structured_outputs_config" not in arguments:
        structured.disable_any_whitespace = True


def _end_of_turn(tokenizer: Any, config: VllmConfig) -> set[int]:
    """Every token at which vLLM ends a turn: the tokenizer's, and the generation config's."""
    listed = config.model_config.try_get_generation_config().get("eos_token_id", [])
    return {tokenizer.eos_token_id, *([listed] if isinstance(listed, int) else listed)} - {None}


def _scores(completion: CompletionOutput, sampling: Sampling) -> list[TokenLogprob]:
    if sampling.top_logprobs is None or completion.logprobs is None:
        return []
    pairs = zip(completion.token_ids, completion.logprobs, strict=True)
    return [_score(token, found or {}, sampling.top_logprobs) for token, found in pairs]


def _prompt_scores(job: Job, output: RequestOutput) -> list[TokenLogprob]:
    most = job.sampling.prompt_logprobs or 0
    pairs = zip(job.prompt_ids[1:], (output.prompt_logprobs or [])[1:], strict=True)
    return [_score(token, found or {}, most) for token, found in pairs]


def _score(token: int, found: Mapping[int, Logprob], most: int) -> TokenLogprob:
    ranked = sorted(found.items(), key=lambda item: item[1].rank or 0)
    top = [(other, _finite(score.logprob)) for other, score in ranked[:most]]
    own = found[token]
    return TokenLogprob(token, _finite(own.logprob), tuple(top), own.rank or 0)


def _check_prompt_scores(job: Job, vocabulary: int) -> None:
    """Refuse prompts whose scores would take more memory than an engine should be asked for.

    Raises:
        Unserved: if this is one.
    """
    most = MOST_PROMPT_LOGITS // vocabulary
    if job.sampling.prompt_logprobs is not None and len(job.prompt_ids) > most:
        raise UnsupportedRequest(
            "prompt_logprobs",
            f"log probabilities can be had of prompts of {most} tokens at most, and this one "
            f"has {len(job.prompt_ids)}",
        )


def _finite(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)


def _failed(constraint: Constraint | None) -> Exception:
    """Why the engine failed one request and goes on with the rest."""
    if constraint is None:
        return EngineUnavailable("the engine failed this request")
    return UnsupportedRequest(constraint.field, f"the engine cannot follow '{constraint.field}'")


def _unserved(error: VLLMClientError, constraint: Constraint | None) -> UnsupportedRequest:
    """What vLLM will not take, under the name that our clients have for it."""
    field = getattr(error, "parameter", None)
    if field is None and constraint is not None:
        field = constraint.field
    text = Exception.__str__(error)
    return UnsupportedRequest("top_logprobs" if field == "logprobs" else field or "", text)
