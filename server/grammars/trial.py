"""What a grammar would cost the engine, found out in a process that may be lost over it."""

import contextlib
import signal
import socket

import numpy as np
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.exceptions import VLLMClientError
from vllm.sampling_params import StructuredOutputsParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.structured_output.request import get_structured_output_key

from budget.processors.grammars import Backends, TimedGrammar
from server.grammars.bounds import bound
from server.grammars.frames import Answer, Task, receive, send

STEPS = 48
"""Tokens of an answer that are tried."""

OUT_OF_MEMORY = ("bad_alloc", "memory allocation", "Cannot allocate memory")


class Trial:
    """Tries grammars as the engine would use them, by vLLM's own functions."""

    def __init__(self, config: VllmConfig) -> None:
        self._config = config
        self._tokenizer = cached_tokenizer_from_config(config.model_config)
        self._backends = Backends(config, self._tokenizer)
        # What the backends make once for the vocabulary is not to be made in every child.
        warm = Task(kind="json_object", value=True, seconds=0, mebibytes=0, nice=0)
        for backend in _used(config):
            with contextlib.suppress(Exception):  # an answer of its own to who asks for it
                self._backends.compile_in(
                    backend, *get_structured_output_key(_bound_to(warm)), None
                )
        self.try_out(warm)

    def run(self, connection: socket.socket) -> None:
        """Try what the connection asks for, within its limits."""
        task = receive(connection, Task)
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
            return Answer(refused=text if ours and text else "no grammar can be made of it")

    def _try_out(self, task: Task) -> Answer:
        config = self._config
        params = SamplingParams(
            structured_outputs=StructuredOutputsParams(**{task.kind: task.value})
        )
        params._validate_structured_outputs(
            config.model_config, config.structured_outputs_config, self._tokenizer
        )
        checked = params.structured_outputs
        if checked is None or checked._backend is None:
            raise ValueError("vLLM names no backend for it")
        kind, spec = get_structured_output_key(checked)
        grammar = self._backends.compile_in(checked._backend, kind, spec, None)
        if not self._follow(grammar):
            return Answer(out_of="steps")
        return Answer(backend=checked._backend, rewritten=_rewritten(task, checked))

    def _follow(self, grammar: TimedGrammar) -> bool:
        """Take some way through the grammar; whether that can be done in time."""
        bitmask = self._backends.allocate_token_bitmask(1)
        draw = np.random.default_rng(0)
        for _ in range(STEPS):
            if grammar.is_given_up or grammar.is_terminated():
                break
            grammar.fill_bitmask(bitmask, 0)
            bits = np.unpackbits(bitmask.numpy()[0].view(np.uint8), bitorder="little")
            allowed = np.flatnonzero(bits[: self._backends.vocab_size])
            if not len(allowed):
                break
            grammar.accept_tokens("trial", [int(draw.choice(allowed))])
        return not grammar.is_given_up


def _bound_to(task: Task) -> StructuredOutputsParams:
    return StructuredOutputsParams(**{task.kind: task.value})


def _used(config: VllmConfig) -> tuple[str, ...]:
    named = config.structured_outputs_config.backend
    return ("xgrammar", "guidance") if named == "auto" else (named,)


def _rewritten(task: Task, checked: StructuredOutputsParams) -> str | None:
    """The grammar that vLLM has put in the place of what was asked for, if it has."""
    return checked.grammar if checked.grammar != task.value else None
