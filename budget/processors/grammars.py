"""Grammars in vLLM's engine: each in the backend it was checked for, and none to hold up a step."""

import concurrent.futures
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from typing import Any

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

from proctor.budget.processors.mask_threads import SHARE_SECONDS, MaskThreads
from proctor.budget.processors.params import is_slow

MASK_SECONDS = 0.25
"""CPU time that a grammar may take beyond its share of each call before it is given up."""

ANYTHING = -1
"""32 bits of a mask that let every token through."""

QUICK_THREADS = 4
SLOW_THREADS = 2
QUICK_NICE = 5
SLOW_NICE = 10
"""Not as low as it goes: a thread that holds the interpreter's lock must get to run."""

MOST_THREADS = 8
"""That one grammar is compiled with; vLLM's own number."""


class TimedGrammar(StructuredOutputGrammar):
    """A grammar that is given up once its masks take too long: every request waits for them."""

    def __init__(
        self,
        grammar: StructuredOutputGrammar,
        threads: MaskThreads | None = None,
        row: torch.Tensor | None = None,
    ) -> None:
        """Begin with no time taken.

        Args:
            grammar: the grammar itself.
            threads: where it is called if it is to be given up in the middle of a call, or
                else it is called at once.
            row: its own to make masks in, as what was given up goes on to write.
        """
        self._grammar = grammar
        self._threads = threads
        self._row = row
        self._debt = 0.0

    @property
    def is_given_up(self) -> bool:
        """Whether it has taken too much time."""
        return self._debt > MASK_SECONDS

    @property
    def error(self) -> str:
        """Why it cannot be followed any further, if it cannot; it would let the answer end there.

        llguidance has limits of its own, and says in no other way that one is reached.
        """
        grammar = self._grammar
        return grammar.ll_matcher.get_error() if isinstance(grammar, GuidanceGrammar) else ""

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        """See `StructuredOutputGrammar`; False ends the request, which is how it is given up."""
        accepted = self._call(self._grammar.accept_tokens, request_id, tokens)
        return bool(accepted) and not self.is_given_up and not self.error

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        """See `StructuredOutputGrammar`."""
        return self._call(self._grammar.validate_tokens, tokens) or []

    def rollback(self, num_tokens: int) -> None:
        """See `StructuredOutputGrammar`."""
        self._call(self._grammar.rollback, num_tokens)

    def fill_bitmask(self, bitmask: torch.Tensor, batch_index: int) -> None:
        """See `StructuredOutputGrammar`."""
        if self._row is None:
            self._call(self._grammar.fill_bitmask, bitmask, batch_index)
            return
        self._call(self._grammar.fill_bitmask, self._row, 0)
        if self.is_given_up:
            bitmask[batch_index].fill_(ANYTHING)
        else:
            bitmask[batch_index].copy_(self._row[0])

    def is_terminated(self) -> bool:
        """See `StructuredOutputGrammar`."""
        return self._grammar.is_terminated()

    def reset(self) -> None:
        """See `StructuredOutputGrammar`."""
        self._call(self._grammar.reset)

    def _call(self, work: Callable[..., Any], *args: Any) -> Any:
        """What a call to it gives; None once it is given up, and may be at work still."""
        if self.is_given_up:
            return None
        if self._threads is None:
            return self._timed(work, *args)
        given: list[Any] = []
        if not self._threads.run(lambda: given.append(self._timed(work, *args))):
            self._debt = math.inf
            return None
        return given[0]

    def _timed(self, work: Callable[..., Any], *args: Any) -> Any:
        began = time.thread_time()
        try:
            return work(*args)
        finally:
            self._debt = max(0.0, self._debt + time.thread_time() - began - SHARE_SECONDS)


class Backends(StructuredOutputBackend):
    """All of vLLM's backends, each made when it is first asked for.

    vLLM's own manager keeps to the backend of the first request that needs one,
    whichever backend the later ones were checked for.
    """

    def __init__(self, config: VllmConfig, tokenizer: Any) -> None:
        super().__init__(config, tokenizer, config.model_config.get_vocab_size())
        self._lock = threading.Lock()
        self._made: dict[str, StructuredOutputBackend] = {}
        self._threads = MaskThreads()
        self._quick = _executor("grammars", QUICK_THREADS, QUICK_NICE)
        self._slow = _executor("slow-grammars", SLOW_THREADS, SLOW_NICE)

    def begin(self, request: Request) -> "Future[StructuredOutputGrammar]":
        """Compile a request's grammar, out of the way of others if it is known to take long."""
        slow = request.sampling_params is not None and is_slow(request.sampling_params)
        return (self._slow if slow else self._quick).submit(self._compile, request)

    def compile_in(
        self,
        backend: str,
        kind: StructuredOutputOptions,
        spec: str,
        stop_token_ids: set[int] | None,
        threads: MaskThreads | None = None,
    ) -> TimedGrammar:
        """Compile a grammar.

        Args:
            backend: vLLM's name of it.
            kind: what `spec` is.
            spec: the grammar.
            stop_token_ids: tokens that may come when the grammar has ended, and not before.
            threads: where it is to be followed, if others wait for its masks.
        """
        compiled = self._backend(backend).compile_grammar(kind, spec, stop_token_ids)
        row = None if threads is None else self.allocate_token_bitmask(1)
        return TimedGrammar(compiled, threads, row)

    def compile_grammar(
        self,
        request_type: StructuredOutputOptions,
        grammar_spec: str,
        stop_token_ids: set[int] | None = None,
    ) -> StructuredOutputGrammar:
        """See `StructuredOutputBackend`; in the backend that the operator has set."""
        named = self.vllm_config.structured_outputs_config.backend
        backend = "xgrammar" if named == "auto" else named
        return self.compile_in(backend, request_type, grammar_spec, stop_token_ids, self._threads)

    def allocate_token_bitmask(self, max_num_seqs: int) -> torch.Tensor:
        """See `StructuredOutputBackend`."""
        return xgrammar.allocate_token_bitmask(max_num_seqs, self.vocab_size)

    def destroy(self) -> None:
        """See `StructuredOutputBackend`."""
        for executor in (self._quick, self._slow):
            executor.shutdown(wait=True, cancel_futures=True)
        self._threads.close()
        for backend in self._made.values():
            backend.destroy()  # type: ignore[no-untyped-call]

    def _compile(self, request: Request) -> StructuredOutputGrammar:
        structured, params = request.structured_output_request, request.sampling_params
        if structured is None or params is None:
            raise ValueError("the request has no grammar")
        if request.is_finished():
            raise ValueError("nobody waits for the grammar any more")
        kind, spec = structured.structured_output_key
        backend = structured.params._backend or "xgrammar"
        return self.compile_in(backend, kind, spec, params.all_stop_token_ids, self._threads)

    def _backend(self, name: str) -> StructuredOutputBackend:
        with self._lock:
            if name not in self._made:
                made = BACKENDS[name](self.vllm_config, self.tokenizer, self.vocab_size)
                self._made[name] = made
            return self._made[name]


class FewThreads(XgrammarBackend):
    """XGrammar with threads as the machine has cores to spare; vLLM takes eight anywhere."""

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        trivial = self.compiler.compile_grammar('root ::= "a"')
        self.compiler = xgrammar.GrammarCompiler(
            trivial.tokenizer_info,
            max_threads=max(1, min((os.cpu_count() or 1) // 4, MOST_THREADS)),
            cache_limit_bytes=vllm.envs.VLLM_XGRAMMAR_CACHE_MB * 2**20,
        )


class ManyAtOnce(GuidanceBackend):
    """llguidance for several threads: vLLM keeps what one of them compiles where others do too."""

    def compile_grammar(
        self,
        request_type: StructuredOutputOptions,
        grammar_spec: str,
        stop_token_ids: set[int] | None = None,
    ) -> StructuredOutputGrammar:
        """See `StructuredOutputBackend`."""
        grammar = GuidanceBackend.compile_grammar(
            copy(self), request_type, grammar_spec, stop_token_ids
        )
        if isinstance(grammar, GuidanceGrammar):
            grammar.printed_error = True  # or else vLLM logs it with all that a client has sent
        return grammar


BACKENDS: dict[str, Callable[[VllmConfig, Any, int], StructuredOutputBackend]] = {
    "xgrammar": FewThreads,
    "guidance": ManyAtOnce,
    "outlines": OutlinesBackend,
    "lm-format-enforcer": LMFormatEnforcerBackend,
}


def install() -> None:
    """Have vLLM's engine compile its grammars by `Backends`."""
    StructuredOutputManager.grammar_init = _grammar_init  # type: ignore[method-assign]


def _grammar_init(self: StructuredOutputManager, request: Request) -> None:
    """In the place of vLLM's."""
    structured = request.structured_output_request
    if structured is None:
        return
    if not isinstance(self.backend, Backends):
        self.backend = Backends(self.vllm_config, self.tokenizer)
    compiling = self.backend.begin(request)
    if not self._use_async_grammar_compilation:
        concurrent.futures.wait([compiling])
    structured.grammar = compiling


def _executor(name: str, threads: int, nice: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, name, initializer=_be_nice, initargs=(nice,))


def _be_nice(nice: int) -> None:
    # On Linux a priority is a thread's own, and threads that it starts inherit it.
    if os.uname().sysname == "Linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
