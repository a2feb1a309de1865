"""Structured output in vLLM: each grammar uses the backend that it was validated for, with limits.

vLLM fills the token bitmasks of all requests in the engine's step, so a slow grammar would
delay every request in the batch.
"""

import concurrent.futures
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from typing import Any, cast

import torch
import vllm.envs
import xgrammar
from vllm.config import VllmConfig
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.structured_output.backend_guidance import GuidanceBackend, GuidanceGrammar
from vllm.v1.structured_output.backend_lm_format_enforcer import LMFormatEnforcerBackend
from vllm.v1.structured_output.backend_outlines import OutlinesBackend
from vllm.v1.structured_output.backend_types import (
    StructuredOutputBackend,
    StructuredOutputGrammar,
    StructuredOutputOptions,
)
from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend

from proctor.budget.processors.params import is_slow
from proctor.budget.processors.structured_outputs.mask_threads import SECONDS_PER_CALL, MaskThreads

MASK_SECONDS = 0.25
"""CPU time that a grammar may accumulate beyond `SECONDS_PER_CALL` before it is given up."""

ALLOW_ALL = -1
"""32 bits of a token bitmask that allow every token."""

FAST_THREADS = 4
SLOW_THREADS = 2
FAST_NICE = 5
SLOW_NICE = 10
"""Niceness of the compiler threads; not the maximum, because a thread that holds the GIL must get
CPU time."""

MAX_COMPILE_THREADS = 8
"""Maximum number of threads that compile one grammar; vLLM's default."""


class TimedGrammar(StructuredOutputGrammar):
    """A grammar that is given up if its bitmasks take too long, since all requests wait for them.

    Giving up ends the request: the grammar then rejects its tokens.
    """

    def __init__(
        self,
        grammar: StructuredOutputGrammar,
        threads: MaskThreads | None = None,
        mask_row: torch.Tensor | None = None,
    ) -> None:
        """Wrap a grammar.

        Args:
            grammar: the grammar.
            threads: runs the calls, so that a call can be abandoned; None calls directly.
            mask_row: a bitmask of the grammar's own, [1, words] int32, because an abandoned
                call continues to write to it.
        """
        self._grammar = grammar
        self._threads = threads
        self._mask_row = mask_row
        self._debt = 0.0

    @property
    def is_given_up(self) -> bool:
        """Whether the grammar exceeded its CPU time."""
        return self._debt > MASK_SECONDS

    @property
    def error(self) -> str:
        """The grammar's error, if any; without a check, the answer would simply end there.

        llguidance reports its own limits only in this way.
        """
        grammar = self._grammar
        return grammar.ll_matcher.get_error() if isinstance(grammar, GuidanceGrammar) else ""

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        """Advance the grammar; the result False makes vLLM end the request."""
        accepted = self._call(self._grammar.accept_tokens, request_id, tokens)
        return bool(accepted) and not self.is_given_up and not self.error

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        return self._call(self._grammar.validate_tokens, tokens) or []

    def rollback(self, num_tokens: int) -> None:
        self._call(self._grammar.rollback, num_tokens)

    def fill_bitmask(self, bitmask: torch.Tensor, batch_index: int) -> None:
        """Fill a row of the bitmask, [batch, words] int32; allow all tokens if given up."""
        if self._mask_row is None:
            self._call(self._grammar.fill_bitmask, bitmask, batch_index)
            return
        self._call(self._grammar.fill_bitmask, self._mask_row, 0)
        if self.is_given_up:
            bitmask[batch_index].fill_(ALLOW_ALL)
        else:
            bitmask[batch_index].copy_(self._mask_row[0])

    def is_terminated(self) -> bool:
        return self._grammar.is_terminated()

    def reset(self) -> None:
        self._call(self._grammar.reset)

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call the grammar; return None if it is given up, when it may still be running."""
        if self.is_given_up:
            return None
        if self._threads is None:
            return self._timed(function, *args)
        results: list[Any] = []
        if not self._threads.run(lambda: results.append(self._timed(function, *args))):
            self._debt = math.inf
            return None
        return results[0]

    def _timed(self, function: Callable[..., Any], *args: Any) -> Any:
        start = time.thread_time()
        try:
            return function(*args)
        finally:
            self._debt = max(0.0, self._debt + time.thread_time() - start - SECONDS_PER_CALL)


class GrammarBackends(StructuredOutputBackend):
    """All of vLLM's grammar backends, each created on first use.

    vLLM's own manager uses the backend of the first request for all later ones,
    regardless of the backend that they were validated for.
    """

    def __init__(self, config: VllmConfig, tokenizer: Any) -> None:
        super().__init__(config, tokenizer, config.model_config.get_vocab_size())
        self._lock = threading.Lock()
        self._backends: dict[str, StructuredOutputBackend] = {}
        self._threads = MaskThreads()
        self._fast = _executor("grammars", FAST_THREADS, FAST_NICE)
        self._slow = _executor("slow-grammars", SLOW_THREADS, SLOW_NICE)

    def begin(self, request: Request) -> "Future[StructuredOutputGrammar]":
        """Start compiling a request's grammar; slow grammars have threads of their own."""
        slow = request.sampling_params is not None and is_slow(request.sampling_params)
        return (self._slow if slow else self._fast).submit(self._compile, request)

    def compile_with(
        self,
        backend: str,
        kind: StructuredOutputOptions,
        spec: str,
        stop_token_ids: set[int] | None,
        threads: MaskThreads | None = None,
    ) -> TimedGrammar:
        """Compile a grammar with a backend.

        Args:
            backend: vLLM's name of the backend.
            kind: the type of `spec`.
            spec: the grammar.
            stop_token_ids: tokens that are allowed only when the grammar has terminated.
            threads: runs the grammar's calls, so that they can be abandoned.
        """
        compiled = self._backend(backend).compile_grammar(kind, spec, stop_token_ids)
        mask_row = None if threads is None else self.allocate_token_bitmask(1)
        return TimedGrammar(compiled, threads, mask_row)

    def compile_grammar(
        self,
        request_type: StructuredOutputOptions,
        grammar_spec: str,
        stop_token_ids: set[int] | None = None,
    ) -> StructuredOutputGrammar:
        """Compile a grammar with the configured backend."""
        configured = self.vllm_config.structured_outputs_config.backend
        backend = "xgrammar" if configured == "auto" else configured
        return self.compile_with(backend, request_type, grammar_spec, stop_token_ids, self._threads)

    def allocate_token_bitmask(self, max_num_seqs: int) -> torch.Tensor:
        """Return a bitmask, [max_num_seqs, words] int32."""
        return xgrammar.allocate_token_bitmask(max_num_seqs, self.vocab_size)

    def destroy(self) -> None:
        for executor in (self._fast, self._slow):
            executor.shutdown(wait=True, cancel_futures=True)
        self._threads.close()
        for backend in self._backends.values():
            backend.destroy()

    def _compile(self, request: Request) -> StructuredOutputGrammar:
        structured, params = request.structured_output_request, request.sampling_params
        if structured is None or params is None:
            raise ValueError("the request has no grammar")
        if request.is_finished():
            raise ValueError("the request finished before its grammar was compiled")
        kind, spec = structured.structured_output_key
        backend = structured.params._backend or "xgrammar"
        return self.compile_with(backend, kind, spec, params.all_stop_token_ids, self._threads)

    def _backend(self, name: str) -> StructuredOutputBackend:
        with self._lock:
            if name not in self._backends:
                config = _without_free_whitespace(self.vllm_config, name)
                backend = BACKENDS[name](config, self.tokenizer, self.vocab_size)
                self._backends[name] = backend
            return self._backends[name]


def _without_free_whitespace(config: VllmConfig, backend: str) -> VllmConfig:
    """Return a configuration that allows a backend no free whitespace in JSON.

    With free whitespace, a confused model can emit newlines until `max_tokens`. vLLM accepts the
    option only where the operator names a backend, whose configuration is returned as it is; and
    it validates every copy, such as a draft model's, so that the option cannot be set for all.
    """
    structured = config.structured_outputs_config
    if structured.backend != "auto":
        return config
    structured = copy(structured)
    structured.backend = cast(Any, backend)
    structured.disable_any_whitespace = True
    compact = copy(config)
    compact.structured_outputs_config = structured
    return compact


class LimitedXgrammarBackend(XgrammarBackend):
    """XGrammar with a quarter of the CPUs' number of threads; vLLM always uses eight."""

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        trivial = self.compiler.compile_grammar('root ::= "a"')
        self.compiler = xgrammar.GrammarCompiler(
            trivial.tokenizer_info,
            max_threads=max(1, min((os.cpu_count() or 1) // 4, MAX_COMPILE_THREADS)),
            cache_limit_bytes=vllm.envs.VLLM_XGRAMMAR_CACHE_MB * 2**20,
        )


class ThreadSafeGuidanceBackend(GuidanceBackend):
    """llguidance for concurrent compilation: vLLM's backend keeps state of each on itself."""

    def compile_grammar(
        self,
        request_type: StructuredOutputOptions,
        grammar_spec: str,
        stop_token_ids: set[int] | None = None,
    ) -> StructuredOutputGrammar:
        grammar = GuidanceBackend.compile_grammar(
            copy(self), request_type, grammar_spec, stop_token_ids
        )
        if isinstance(grammar, GuidanceGrammar):
            grammar.printed_error = True  # prevents vLLM from logging the client's grammar
        return grammar


BACKENDS: dict[str, Callable[[VllmConfig, Any, int], StructuredOutputBackend]] = {
    "xgrammar": LimitedXgrammarBackend,
    "guidance": ThreadSafeGuidanceBackend,
    "outlines": OutlinesBackend,
    "lm-format-enforcer": LMFormatEnforcerBackend,
}


def install() -> None:
    """Patch vLLM to compile grammars with `GrammarBackends`."""
    StructuredOutputManager.grammar_init = _grammar_init  # type: ignore[method-assign]


def _grammar_init(self: StructuredOutputManager, request: Request) -> None:
    """Replaces `StructuredOutputManager.grammar_init`."""
    structured = request.structured_output_request
    if structured is None:
        return
    if not isinstance(self.backend, GrammarBackends):
        self.backend = GrammarBackends(self.vllm_config, self.tokenizer)
    compiling = self.backend.begin(request)
    if not self._use_async_grammar_compilation:
        concurrent.futures.wait([compiling])
    structured.grammar = compiling


def _executor(name: str, threads: int, nice: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, name, initializer=_set_priority, initargs=(nice,))


def _set_priority(nice: int) -> None:
    # On Linux, priorities apply to single threads and are inherited by the threads that they start.
    if os.uname().sysname == "Linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
