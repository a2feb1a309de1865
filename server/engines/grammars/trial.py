"""Trial compilation of grammars, in a child process that may die of it."""

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

from proctor.budget.processors.structured_outputs.grammars import GrammarBackends, TimedGrammar
from proctor.server.engines.grammars.backends import candidate_backends, choose
from proctor.server.engines.grammars.bounds import apply_limits
from proctor.server.engines.grammars.frames import CheckRequest, CheckResult, receive, send
from proctor.server.engines.tool_calls import Kind

logger = logging.getLogger(__name__)

STEPS = 48
"""Number of tokens for which the logits mask is computed."""

OUT_OF_MEMORY = ("bad_alloc", "memory allocation", "Cannot allocate memory")
NO_GRAMMAR = "it cannot be compiled to a grammar"
MAX_REASON_CHARACTERS = 300


class Trial:
    """Compiles grammars and takes steps in them as the engine would, with vLLM's functions.

    Attributes:
        tokenizer: the model's tokenizer.
        backends: the compilers of grammars, one per backend.
    """

    def __init__(self, config: VllmConfig) -> None:
        self._config = config
        self.tokenizer = cached_tokenizer_from_config(config.model_config)
        self.backends = GrammarBackends(config, self.tokenizer)
        self._usable = {name for name in candidate_backends(self._backend) if self._warm_up(name)}

    def run(self, connection: socket.socket) -> None:
        """Handle the request of one connection, within its limits."""
        request = receive(connection, CheckRequest)
        logging.getLogger("vllm").setLevel(logging.CRITICAL)  # it logs what clients send
        apply_limits(request)
        result = self.check_grammar(request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        send(connection, result)

    def check_grammar(self, request: CheckRequest) -> CheckResult:
        """Validate and compile a grammar, and take up to `STEPS` steps in it."""
        try:
            return self._check(request)
        except MemoryError:
            return CheckResult(exceeded="memory")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in a Rust library is not an `Exception`
            text = BaseException.__str__(error)
            if any(sign in text for sign in OUT_OF_MEMORY):
                return CheckResult(exceeded="memory")
            is_expected = isinstance(error, VLLMClientError | ValueError)
            return _refusal(text if is_expected and text else NO_GRAMMAR)

    def _check(self, request: CheckRequest) -> CheckResult:
        *others, last = choose(Kind(request.kind), request.value, self._backend, self._usable)
        for backend in others:
            with contextlib.suppress(VLLMClientError, ValueError):  # the backend rejects it
                return self._check_in(backend, request)
        return self._check_in(last, request)

    def _check_in(self, backend: str, request: CheckRequest) -> CheckResult:
        params = StructuredOutputsParams(**{request.kind: request.value})
        validated = self._validate(SamplingParams(structured_outputs=params), backend)
        kind, spec = get_structured_output_key(validated)
        chosen = str(validated._backend)
        grammar = self.backends.compile_with(chosen, kind, spec, None)
        self._walk(grammar)
        if grammar.is_given_up:
            return CheckResult(exceeded="steps")
        if grammar.error:
            return _refusal(grammar.error.partition("\n")[0])
        return CheckResult(backend=chosen, rewritten=_rewritten(request, validated))

    def _validate(self, params: SamplingParams, backend: str) -> StructuredOutputsParams:
        """Return the parameters as validated, and perhaps rewritten, by vLLM for a backend."""
        config = copy(self._config.structured_outputs_config)
        config.backend = cast(Any, backend)
        params._validate_structured_outputs(self._config.model_config, config, self.tokenizer)
        validated = params.structured_outputs
        if validated is None or validated._backend is None:
            raise ValueError("vLLM has no backend for it")
        return validated

    @property
    def _backend(self) -> str:
        """The operator's setting, which may be "auto"."""
        return self._config.structured_outputs_config.backend

    def _warm_up(self, backend: str) -> bool:
        """Initialize a backend for the vocabulary once, before the children are forked.

        Returns whether the backend can be used with this tokenizer.
        """
        try:
            kind, spec = get_structured_output_key(StructuredOutputsParams(json_object=True))
            self._walk(self.backends.compile_with(backend, kind, spec, None))
        except Exception:  # backends raise many classes for a tokenizer that they do not support
            logger.exception("the structured output backend %s cannot be used", backend)
            return False
        return True

    def _walk(self, grammar: TimedGrammar) -> None:
        """Compute logits masks and accept random allowed tokens, for up to `STEPS` tokens.

        Raises:
            ValueError: if no token is allowed.
        """
        bitmask = self.backends.allocate_token_bitmask(1)
        rng = np.random.default_rng(0)
        for _ in range(STEPS):
            if grammar.is_given_up or grammar.is_terminated():
                break
            grammar.fill_bitmask(bitmask, 0)
            bits = np.unpackbits(bitmask.numpy()[0].view(np.uint8), bitorder="little")
            allowed = np.flatnonzero(bits[: self.backends.vocab_size])
            if not len(allowed):
                raise ValueError("no text matches it")
            grammar.accept_tokens("trial", [int(rng.choice(allowed))])


def _refusal(text: str) -> CheckResult:
    """Return a result with the reason on one line, shortened: libraries quote whole grammars."""
    return CheckResult(refused=" ".join(text.split())[:MAX_REASON_CHARACTERS])


def _rewritten(request: CheckRequest, validated: StructuredOutputsParams) -> str | None:
    """Return the grammar by which vLLM has replaced the request's, if it has."""
    return validated.grammar if validated.grammar != request.value else None
