"""What a grammar would cost the engine, found out in a process that may be lost over it."""

import contextlib
import logging
import signal
import socket
from copy import copy
from typing import Any, cast

import numpy as np
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.exceptions import VLLMClientError
from vllm.sampling_params import StructuredOutputsParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.structured_output.request import get_structured_output_key

from proctor.budget.processors.grammars import GrammarBackends, TimedGrammar
from proctor.server.engines.grammars.backends import choose, used
from proctor.server.engines.grammars.bounds import bound
from proctor.server.engines.grammars.frames import Answer, Task, receive, send
from proctor.server.engines.tool_calls import Kind

logger = logging.getLogger(__name__)

STEPS = 48
"""Tokens of an answer that are tried."""

OUT_OF_MEMORY = ("bad_alloc", "memory allocation", "Cannot allocate memory")
NO_GRAMMAR = "no grammar can be made of it"
MAX_TOLD = 300
"""Characters of why a grammar cannot be used."""


class Trial:
    """Tries grammars as the engine would use them, by vLLM's own functions."""

    def __init__(self, config: VllmConfig) -> None:
        self._config = config
        self._tokenizer = cached_tokenizer_from_config(config.model_config)
        self._backends = GrammarBackends(config, self._tokenizer)
        self._usable = {name for name in used(self._named) if self._warm_up(name)}

    def run(self, connection: socket.socket) -> None:
        """Try what the connection asks for, within its limits."""
        task = receive(connection, Task)
        logging.getLogger("vllm").setLevel(logging.CRITICAL)  # it logs what clients send
        bound(task)
        answer = self.try_out(task)
        signal.setitimer(signal.ITIMER_PROF, 0)
        send(connection, answer)

    def try_out(self, task: Task) -> Answer:
        """Check a grammar, compile it, and take a few steps in it."""
        try:
            return self._try_out(task)
        except MemoryError:
            return Answer(out_of="memory")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of a grammar library in Rust is no `Exception`
            text = BaseException.__str__(error)
            if any(sign in text for sign in OUT_OF_MEMORY):
                return Answer(out_of="memory")
            ours = isinstance(error, VLLMClientError | ValueError)
            return _refusal(text if ours and text else NO_GRAMMAR)

    def _try_out(self, task: Task) -> Answer:
        *others, last = choose(Kind(task.kind), task.value, self._named, self._usable)
        for backend in others:
            with contextlib.suppress(VLLMClientError, ValueError):  # how a backend refuses one
                return self._try_in(backend, task)
        return self._try_in(last, task)

    def _try_in(self, backend: str, task: Task) -> Answer:
        form = StructuredOutputsParams(**{task.kind: task.value})
        checked = self._checked(SamplingParams(structured_outputs=form), backend)
        kind, spec = get_structured_output_key(checked)
        chosen = str(checked._backend)
        grammar = self._backends.compile_with(chosen, kind, spec, None)
        self._follow(grammar)
        if grammar.is_given_up:
            return Answer(out_of="steps")
        if grammar.error:
            return _refusal(grammar.error.partition("\n")[0])
        return Answer(backend=chosen, rewritten=_rewritten(task, checked))

    def _checked(self, params: SamplingParams, backend: str) -> StructuredOutputsParams:
        """What vLLM makes of it for a backend."""
        config = copy(self._config.structured_outputs_config)
        config.backend = cast(Any, backend)
        params._validate_structured_outputs(self._config.model_config, config, self._tokenizer)
        checked = params.structured_outputs
        if checked is None or checked._backend is None:
            raise ValueError("vLLM names no backend for it")
        return checked

    @property
    def _named(self) -> str:
        return self._config.structured_outputs_config.backend

    def _warm_up(self, backend: str) -> bool:
        """Make once what a backend makes for the vocabulary; every child would have to."""
        try:
            kind, spec = get_structured_output_key(StructuredOutputsParams(json_object=True))
            self._follow(self._backends.compile_with(backend, kind, spec, None))
        except Exception:  # of many classes: a tokenizer that the backend cannot use
            logger.exception("no grammar can be made by %s", backend)
            return False
        return True

    def _follow(self, grammar: TimedGrammar) -> None:
        """Take some way through the grammar.

        Raises:
            ValueError: if it leads nowhere.
        """
        bitmask = self._backends.allocate_token_bitmask(1)
        draw = np.random.default_rng(0)
        for _ in range(STEPS):
            if grammar.is_given_up or grammar.is_terminated():
                break
            grammar.fill_bitmask(bitmask, 0)
            bits = np.unpackbits(bitmask.numpy()[0].view(np.uint8), bitorder="little")
            allowed = np.flatnonzero(bits[: self._backends.vocab_size])
            if not len(allowed):
                raise ValueError("no text matches it")
            grammar.accept_tokens("trial", [int(draw.choice(allowed))])


def _refusal(text: str) -> Answer:
    """Why it cannot be used, in a line: libraries tell whole grammars."""
    return Answer(refused=" ".join(text.split())[:MAX_TOLD])


def _rewritten(task: Task, checked: StructuredOutputsParams) -> str | None:
    """The grammar that vLLM has put in the place of what was asked for, if it has."""
    return checked.grammar if checked.grammar != task.value else None
