"""vLLM in this server's own process, behind the seam."""

import logging
import os
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.envs import enable_envs_cache
from vllm.inputs.engine import tokens_input
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.utils.gc_utils import freeze_gc_heap
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from budget.processors.registry import encode_markers, find_marker_texts
from budget.processors.vocabulary import read_vocabulary
from budget.processors.wire import EngineBudget, with_markers
from server.engines.base import Delta, EngineUnavailable, Finish, Job, ModelInfo
from server.engines.codec import VllmCodec

logger = logging.getLogger(__name__)

PROCESSORS = {
    False: "budget.processors.v1:BudgetLogitsProcessor",
    True: "budget.processors.v2:BudgetLogitsProcessor",
}
"""The processor by whether vLLM uses its V2 runner."""
WORKER_EXTENSION = "budget.processors.worker.BudgetWorkerExtension"
OURS = ("logits_processors", "worker_extension_cls", "reasoning_parser")


@dataclass(frozen=True, slots=True)
class MarkerSource:
    """Where to take the thinking markers from; all unset is from the chat template."""

    start: str | None = None
    end: str | None = None
    parser: str | None = None


class VllmEngine:
    """An `AsyncLLM` whose own logits processor enforces the budgets."""

    def __init__(self, llm: AsyncLLM, model: ModelInfo, codec: VllmCodec) -> None:
        self._llm = llm
        self._defaults = llm.model_config.get_diff_sampling_param()
        self.model = model
        self.codec = codec

    @classmethod
    def load(
        cls, model: str, *, name: str, arguments: Mapping[str, Any], markers: MarkerSource
    ) -> "VllmEngine":
        """Load a model; blocks until it can answer.

        Args:
            model: a path or a Hugging Face name.
            name: what clients call it.
            arguments: vLLM's engine arguments, passed on unchanged.
            markers: where its thinking markers come from.

        Raises:
            ValueError: if an argument would take the budgets out of our hands,
                or the markers cannot be found.
        """
        # Budgets have not been seen on a GPU with the V2 runner, which vLLM would choose there.
        os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
        config = _engine_config(model, name, arguments)
        config.model_config.logits_processors = [PROCESSORS[config.use_v2_model_runner]]
        tokenizer = cached_tokenizer_from_config(config.model_config)
        texts = find_marker_texts(
            tokenizer, start=markers.start, end=markers.end, parser=markers.parser
        )
        found = encode_markers(tokenizer, texts, _end_of_turn(tokenizer, config))
        config.additional_config = with_markers(config.additional_config, found)
        llm = AsyncLLM.from_vllm_config(config, enable_log_requests=False)
        info = ModelInfo(
            name,
            config.model_config.max_model_len,
            found,
            int(time.time()),
            read_vocabulary(tokenizer, config.model_config.get_vocab_size()),
        )
        engine = cls(llm, info, VllmCodec(llm.renderer, texts[0]))
        # Or else each full collection looks through all of vLLM while every stream waits.
        freeze_gc_heap()
        # Or else vLLM parses several environment variables for each token that it hands out.
        enable_envs_cache()
        return engine

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """See `Engine`."""
        stream = self._llm.generate(tokens_input(list(job.prompt_ids)), self._params(job), job.id)
        try:
            async for output in stream:
                completion = output.outputs[0]
                reason = completion.finish_reason
                yield Delta(completion.token_ids, Finish(reason) if reason else None)
        except (EngineDeadError, EngineGenerateError) as error:
            raise EngineUnavailable("the engine stopped while generating") from error
        finally:
            await stream.aclose()

    async def attempts(self, job: Job) -> frozenset[int]:
        """See `Engine`."""
        if not job.budget.demands_thinking:
            return frozenset()
        try:
            # `collective_rpc` would ask the first data-parallel engine alone.
            per_engine = await self._llm.engine_core.call_utility_all_async(
                "collective_rpc", "take_attempts", None, (job.id,), None
            )
        except EngineDeadError as error:
            raise EngineUnavailable("the engine stopped") from error
        return frozenset(at for workers in per_engine for record in workers for at in record)

    async def health(self) -> None:
        """See `Engine`."""
        try:
            await self._llm.check_health()
        except EngineDeadError as error:
            raise EngineUnavailable("the engine stopped") from error

    async def aclose(self) -> None:
        """See `Engine`."""
        self._llm.shutdown()
        # At the interpreter's end its finalizer would find vLLM's modules half taken down.
        del self._llm

    def _params(self, job: Job) -> SamplingParams:
        asked = {
            "temperature": job.sampling.temperature,
            "top_p": job.sampling.top_p,
            "seed": job.sampling.seed,
        }
        seed = secrets.randbits(63) if job.sampling.seed is None else job.sampling.seed
        # The model's own defaults can hold any of these, a most number of tokens too.
        params = {
            **self._defaults,
            **{key: to for key, to in asked.items() if to is not None},
            "max_tokens": job.sampling.max_tokens,
            "detokenize": False,
            "output_kind": RequestOutputKind.DELTA,
            "extra_args": EngineBudget(job.id, seed, job.budget).to_extra_args(),
        }
        return SamplingParams(**params)


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


def _end_of_turn(tokenizer: Any, config: VllmConfig) -> set[int]:
    """Every token at which vLLM ends a turn: the tokenizer's, and the generation config's."""
    listed = config.model_config.try_get_generation_config().get("eos_token_id", [])
    return {tokenizer.eos_token_id, *([listed] if isinstance(listed, int) else listed)} - {None}
