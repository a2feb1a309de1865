"""A plugin of vLLM (`vllm.general_plugins`) that makes its kernels run in the interpreter.

vLLM calls it in each of its processes.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from triton import language  # noqa: F401, see _patch_language_once
from triton.language import core  # noqa: F401
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle
from vllm.v1.sample.ops import topk_topp_sampler


@cache
def adapt() -> None:
    """Adapt the interpreter to the kernels of vLLM, and vLLM to the interpreter."""
    _cast_masks()
    _patch_language_once()
    # The builder checks each operation on integers for overflow, which hashes rely on.
    builder = interpreter.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=False)
    # The kernel of top-k and top-p calls methods on the integers of `tl.range`, which are Python's
    # in the interpreter; vLLM has the same in PyTorch.
    topk_topp_sampler.HAS_TRITON = False


def _cast_masks() -> None:
    """Cast masks to booleans, as the compiler does."""
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def masked_load(builder: Any, pointers: Any, mask: Any, *others: Any, **named: Any) -> Any:
        return load(builder, pointers, _boolean(mask), *others, **named)

    def masked_store(builder: Any, pointers: Any, value: Any, mask: Any, *others: Any) -> Any:
        return store(builder, pointers, value, _boolean(mask), *others)

    InterpreterBuilder.create_masked_load = masked_load
    InterpreterBuilder.create_masked_store = masked_store


def _boolean(mask: TensorHandle) -> TensorHandle:
    return TensorHandle(mask.data.astype(np.bool_), mask.dtype)


def _patch_language_once() -> None:
    """Patch Triton's language once, instead of at each call of a kernel and of its functions."""
    # The modules to patch are taken from the globals of a function: `core` and `language`.
    patches = interpreter._patch_lang(_boolean)
    patches.restore = lambda: None
    interpreter._patch_lang = lambda _: patches
