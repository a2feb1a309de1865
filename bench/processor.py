"""What the logits processors cost per step, beside the bare masking of the same rows.

    .venv/bin/python -m bench.processor

The baseline is what any processor that forces a token has to do at least if it
does so by masking: fill the held rows of the logits and write one value to
each. It is timed in turn with the processor, step by step, on the same logits.
Printed are medians, and how many operations the processor does in torch. On the
CPU the V2 processor runs on the CPU's tensors, to compare; vLLM itself uses it
on GPUs only.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState

from proctor.budget import Markers, OnLoop, TokenBudget, Vocabulary
from proctor.budget.processors import v1, v2
from proctor.budget.processors.params import EngineBudget, with_markers

COLUMNS = 151_936
CONTEXT = 4096
MARKERS = Markers((151_667,), (151_668,), frozenset({151_643, 151_645}))
WORDS = 1000


@dataclass(frozen=True)
class Case:
    """A situation that all requests with a budget are in."""

    name: str
    budget: TokenBudget
    sampling: dict[str, Any]
    most_rows: int


MAXIMUM = TokenBudget(maximum=3000, landing=64, wrap_up_ids=(5, 6, 7), on_loop=OnLoop.CLOSE)
MINIMUM = TokenBudget(
    minimum=2000, maximum=3000, continuation_ids=((11,),), on_loop=OnLoop.CLOSE, landing=64
)
CASES = [
    Case("maximum", MAXIMUM, {}, 256),
    Case("minimum, greedy", MINIMUM, {"temperature": 0.0}, 256),
    Case("minimum, temperature 1", MINIMUM, {"temperature": 1.0}, 32),
    Case("minimum, temperature 0.6, top-p 0.95", MINIMUM, {"temperature": 0.6, "top_p": 0.95}, 32),
]


class V1:
    """The V1 processor in a full batch."""

    def __init__(self, case: Case, rows: int, held: int, device: torch.device) -> None:
        self._processor = v1.BudgetLogitsProcessor(_config(rows), device, False)
        self._outputs: list[list[int]] = [[] for _ in range(rows)]
        added = [(row, _params(case, row, held), None, self._outputs[row]) for row in range(rows)]
        self._processor.update_state(BatchUpdate(rows, [], added, []))

    def prepare(self, tokens: list[int]) -> None:
        for output, token in zip(self._outputs, tokens, strict=True):
            output.append(token)

    def apply(self, logits: torch.Tensor) -> None:
        self._processor.update_state(None)
        self._processor.apply(logits)


class V2:
    """The V2 processor in a full batch without drafts."""

    def __init__(self, case: Case, rows: int, held: int, device: torch.device) -> None:
        ones = torch.ones(rows, dtype=torch.int32)
        self._ids = torch.zeros(rows, CONTEXT, dtype=torch.int32, device=device)
        self._total = ones.to(device)
        states = LogitsProcRequestState(
            device,
            rows,
            COLUMNS,
            all_token_ids=SimpleNamespace(gpu=self._ids),
            prompt_len=SimpleNamespace(gpu=ones.to(device), np=ones.numpy()),
            prefill_len=SimpleNamespace(gpu=ones.to(device), np=ones.numpy()),
            total_len=SimpleNamespace(gpu=self._total),
        )
        self._processor = v2.BudgetLogitsProcessor(_config(rows), states)
        for row in range(rows):
            self._processor.add_request(row, _params(case, row, held))
        self._processor.apply_staged_writes()
        self._rows = torch.arange(rows, device=device)
        self._nothing = torch.zeros(rows, dtype=torch.int32, device=device)
        self._length = np.ones(rows, dtype=np.int32)

    def prepare(self, tokens: list[int]) -> None:
        self._ids[self._rows, self._total.long()] = torch.tensor(tokens).int().to(self._ids.device)
        self._total += 1
        self._length += 1
        self._context = LogitsContext(
            self._rows,
            self._rows,
            np.arange(len(tokens)),
            self._nothing,
            self._nothing,
            self._total - 1,
            self._length,
        )

    def apply(self, logits: torch.Tensor) -> None:
        self._processor.apply(logits, self._context)


def _config(rows: int) -> Any:
    return SimpleNamespace(
        scheduler_config=SimpleNamespace(max_num_seqs=rows),
        model_config=SimpleNamespace(max_model_len=CONTEXT, get_vocab_size=lambda: COLUMNS),
        parallel_config=SimpleNamespace(enable_batch_sharded_sampling=False),
        speculative_config=None,
        num_speculative_tokens=0,
        additional_config=with_markers({}, MARKERS),
    )


def _params(case: Case, row: int, held: int) -> SamplingParams:
    if row >= held:
        return SamplingParams(**case.sampling)
    carried = EngineBudget(f"r{row}", row, case.budget).to_extra_args()
    return SamplingParams(extra_args=carried, **case.sampling)


def _vocabulary() -> Vocabulary:
    """One in a hundred tokens ends inside a character, one in fifty ends a sentence."""
    kinds = [b" word"] * 97 + [b"\xe2\x82", b".", b".\n"]
    bytewise = [bytes([byte]) for byte in range(256)]
    return Vocabulary.from_bytes(bytewise + [kinds[at % 100] for at in range(COLUMNS - 256)])


class _Count(TorchDispatchMode):
    """Counts operations on tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


def _timed(work: Callable[[], None], device: torch.device) -> float:
    """Milliseconds until the device has done it."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    begin = time.perf_counter()
    work()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return (time.perf_counter() - begin) * 1e3


def _measure(
    runner: type[V1] | type[V2], case: Case, rows: int, held: int, steps: int, device: torch.device
) -> tuple[float, float, int]:
    """Median milliseconds of the mask and of the processor, and its operations in torch."""
    batch = runner(case, rows, held, device)
    logits = torch.randn(rows, COLUMNS, device=device)
    masked = torch.zeros(rows, COLUMNS, device=device)
    chosen = torch.arange(held, device=device)
    generator = np.random.default_rng(0)

    def mask() -> None:
        masked[chosen] = -torch.inf
        masked[chosen, chosen] = 0.0

    masks, processed = [], []
    for _ in range(steps + 3):
        batch.prepare(generator.integers(300, 300 + WORDS, rows).tolist())
        masks.append(_timed(mask, device))
        processed.append(_timed(lambda: batch.apply(logits), device))
    batch.prepare([300] * rows)
    with _Count() as count:
        batch.apply(logits)
    return statistics.median(masks[3:]), statistics.median(processed[3:]), count.operations


def _devices() -> Iterable[torch.device]:
    yield torch.device("cpu")
    if torch.cuda.is_available():
        yield torch.device("cuda")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=50, help="timed steps of each kind")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU's operations")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    known = _vocabulary()
    heads = "device", "runner", "budgets", "rows", "with a budget", "mask, ms", "step, ms", "torch"
    print("|", " | ".join(heads), "|")
    print("|---|---|---|--:|--:|--:|--:|--:|")
    with (
        torch.inference_mode(),
        patch.object(v1, "vocabulary_of", return_value=known),
        patch.object(v2, "vocabulary_of", return_value=known),
    ):
        for device in _devices():
            for case in CASES:
                for rows in (1, 32, 256):
                    for held in sorted({0, rows // 2, rows}):
                        if held > case.most_rows or (not held and case is not CASES[0]):
                            continue
                        for runner in (V1, V2):
                            steps = asked.steps if case is CASES[0] else max(3, asked.steps // 10)
                            mask, step, count = _measure(runner, case, rows, held, steps, device)
                            print(
                                f"| {device.type} | {runner.__name__} | {case.name} | {rows} | "
                                f"{held} | {mask:.3f} | {step:.3f} | {count} |",
                                flush=True,
                            )


if __name__ == "__main__":
    main()
