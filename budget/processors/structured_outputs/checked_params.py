"""Sampling parameters whose structured output was validated before they reach vLLM."""

from typing import Any

from vllm import SamplingParams

BACKEND = "proctor_grammar_backend"
"""The key in `SamplingParams.extra_args` of the backend in which a gateway compiled the grammar."""


class CheckedParams(SamplingParams):
    """Sampling parameters that vLLM does not validate again, which it does on the event loop."""

    def _validate_structured_outputs(self, *_: Any) -> None:
        pass

    @classmethod
    def of(cls, params: SamplingParams, backend: str) -> "CheckedParams":
        """Return parameters from another process, whose grammar was compiled in a backend."""
        checked = cls(**{name: getattr(params, name) for name in params.__struct_fields__})
        if checked.structured_outputs is not None:
            checked.structured_outputs._backend = backend
        return checked
