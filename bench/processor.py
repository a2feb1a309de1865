"""The cost of the logits processors per step, against plain masking of the same rows.

    .venv/bin/python -m bench.processor

The baseline is the minimum for any processor that forces tokens by masking: fill the
rows with a budget in the logits, and write one value to each. Baseline and processor
alternate step by step, on the same logits. The table has medians, and the number of
torch operations of the processor. On the CPU the V2 processor runs on CPU tensors for
comparison; vLLM itself uses it on GPUs only. Some rows' logits are flat, the worst case.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
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
from proctor.budget.confidence import ConfidenceExit
from proctor.budget.processors import v1, v2
from proctor.budget.processors.params import EngineBudget, with_markers

COLUMNS = 151_936
CONTEXT = 4096
DISTINCT_TOKENS = 1000
LIKELY_TOKENS = 10


@dataclass(frozen=True)
class Model:
    """A vocabulary of `columns` tokens, with markers of one token each near its end, as Qwen3's."""

    columns: int

    @property
    def markers(self) -> Markers:
        end = self.columns
        return Markers((end - 269,), (end - 268,), frozenset({end - 293, end - 291}))


@dataclass(frozen=True)
class Case:
    """The budget and sampling parameters of the rows with a budget."""

    name: str
    budget: TokenBudget
    sampling: dict[str, Any]
    max_rows: int
    flat: bool = False
    confidence: ConfidenceExit | None = None


MAXIMUM = TokenBudget(maximum=3000, landing=64, wrap_up_ids=(5, 6, 7), on_loop=OnLoop.CLOSE)
MINIMUM = TokenBudget(
    minimum=2000, maximum=3000, continuation_ids=((11,),), on_loop=OnLoop.CLOSE, landing=64
)
CASES = [
    Case("maximum", MAXIMUM, {}, 256),
    Case("confidence", MAXIMUM, {}, 256, confidence=ConfidenceExit(64, 99.0, 2, None)),
    Case("minimum, greedy", MINIMUM, {"temperature": 0.0}, 256),
    Case("minimum, temperature 1", MINIMUM, {"temperature": 1.0}, 32),
    Case("minimum, temperature 0.6, top-p 0.95", MINIMUM, {"temperature": 0.6, "top_p": 0.95}, 32),
    Case("the same, flat", MINIMUM, {"temperature": 0.6, "top_p": 0.95}, 32, flat=True),
]


class V1:
    """The V1 processor in a full batch."""

    name = "V1"

    def __init__(
        self, model: Model, case: Case, rows: int, with_budget: int, device: torch.device
    ) -> None:
        self._processor = v1.BudgetLogitsProcessor(_config(model, rows), device, False)
        self._outputs: list[list[int]] = [[] for _ in range(rows)]
        added = [
            (row, _params(case, row, with_budget), None, self._outputs[row]) for row in range(rows)
        ]
        self._processor.update_state(BatchUpdate(rows, [], added, []))

    def prepare(self, tokens: list[int]) -> None:
        for output, token in zip(self._outputs, tokens, strict=True):
            output.append(token)

    def apply(self, logits: torch.Tensor) -> None:
        self._processor.update_state(None)
        self._processor.apply(logits)


class V1Table(V1):
    """The V1 processor that uses its table for a few rows, too."""

    name = "V1, table"

    def __init__(
        self, model: Model, case: Case, rows: int, with_budget: int, device: torch.device
    ) -> None:
        with patch.object(v1, "MAX_MACHINES", 0):
            super().__init__(model, case, rows, with_budget, device)


class V2:
    """The V2 processor in a full batch without drafts."""

    name = "V2"

    def __init__(
        self, model: Model, case: Case, rows: int, with_budget: int, device: torch.device
    ) -> None:
        ones = torch.ones(rows, dtype=torch.int32)
        self._ids = torch.zeros(rows, CONTEXT, dtype=torch.int32, device=device)
        self._total = ones.to(device)
        states = LogitsProcRequestState(
            device,
            rows,
            model.columns,
            all_token_ids=_buffer(gpu=self._ids),
            prompt_len=_buffer(gpu=ones.to(device), np=ones.numpy()),
            prefill_len=_buffer(gpu=ones.to(device), np=ones.numpy()),
            total_len=_buffer(gpu=self._total),
        )
        self._processor = v2.BudgetLogitsProcessor(_config(model, rows), states)
        for row in range(rows):
            self._processor.add_request(row, _params(case, row, with_budget))
        self._processor.apply_staged_writes()
        self._rows = torch.arange(rows, device=device)
        self._zeros = torch.zeros(rows, dtype=torch.int32, device=device)
        self._length = np.ones(rows, dtype=np.int32)

    def prepare(self, tokens: list[int]) -> None:
        self._ids[self._rows, self._total.long()] = torch.tensor(tokens).int().to(self._ids.device)
        self._total += 1
        self._length += 1
        self._context = LogitsContext(
            self._rows,
            self._rows,
            np.arange(len(tokens)),
            self._zeros,
            self._zeros,
            self._total - 1,
            self._length,
        )

    def apply(self, logits: torch.Tensor) -> None:
        self._processor.apply(logits, self._context)


def _runners(with_budget: int) -> tuple[type[V1] | type[V2], ...]:
    return (V1, V1Table, V2) if 0 < with_budget <= v1.MAX_MACHINES else (V1, V2)


def _buffer(**arrays: Any) -> Any:
    """Return a stand-in for one of vLLM's buffers, with its views `gpu` and `np`."""
    return SimpleNamespace(**arrays)


def _config(model: Model, rows: int) -> Any:
    return SimpleNamespace(
        scheduler_config=SimpleNamespace(max_num_seqs=rows),
        model_config=SimpleNamespace(max_model_len=CONTEXT, get_vocab_size=lambda: model.columns),
        parallel_config=SimpleNamespace(enable_batch_sharded_sampling=False),
        speculative_config=None,
        num_speculative_tokens=0,
        additional_config=with_markers({}, model.markers),
    )


def _params(case: Case, row: int, with_budget: int) -> SamplingParams:
    if row >= with_budget:
        return SamplingParams(**case.sampling)
    budget = EngineBudget(f"r{row}", row, case.budget, confidence=case.confidence)
    carried = budget.to_extra_args()
    return SamplingParams(extra_args=carried, **case.sampling)


def _vocabulary(model: Model) -> Vocabulary:
    """Return a vocabulary: 1% of the tokens end inside a character, 2% end a sentence."""
    tokens = [b" word"] * 97 + [b"\xe2\x82", b".", b".\n"]
    bytewise = [bytes([byte]) for byte in range(256)]
    texts = bytewise + [tokens[index % 100] for index in range(model.columns - 256)]
    (start,), (end,) = model.markers.start, model.markers.end
    texts[start], texts[end] = b"<think>", b"</think>"
    return Vocabulary.from_bytes(texts)


def _logits(rows: int, columns: int, flat: bool) -> torch.Tensor:
    """Return logits of which a few stand out, as a model's do, or none if they are flat."""
    logits = torch.randn(rows, columns)
    if not flat:
        logits *= 2
        logits[:, :: columns // LIKELY_TOKENS] += 14
    return logits


class _Count(TorchDispatchMode):
    """Counts operations on tensors."""

    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


def _timed(work: Callable[[], None], device: torch.device) -> float:
    """Return the milliseconds until the device has completed the work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    begin = time.perf_counter()
    work()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return (time.perf_counter() - begin) * 1e3


def _measure(
    runner: type[V1] | type[V2],
    model: Model,
    case: Case,
    rows: int,
    with_budget: int,
    steps: int,
    device: torch.device,
) -> tuple[float, float, int]:
    """Return median milliseconds of mask and processor, and the processor's torch operations."""
    batch = runner(model, case, rows, with_budget, device)
    original = _logits(rows, model.columns, case.flat).to(device)
    logits = torch.empty_like(original)
    masked = torch.zeros(rows, model.columns, device=device)
    chosen = torch.arange(with_budget, device=device)
    generator = np.random.default_rng(0)

    def mask() -> None:
        masked[chosen] = -torch.inf
        masked[chosen, chosen] = 0.0

    masks, processed = [], []
    for _ in range(steps + 3):
        batch.prepare(generator.integers(300, 300 + DISTINCT_TOKENS, rows).tolist())
        logits.copy_(original)
        masks.append(_timed(mask, device))
        processed.append(_timed(lambda: batch.apply(logits), device))
    batch.prepare([300] * rows)
    logits.copy_(original)
    with _Count() as count:  # type: ignore[no-untyped-call]
        batch.apply(logits)
    return statistics.median(masks[3:]), statistics.median(processed[3:]), count.operations


def _devices() -> Iterable[torch.device]:
    yield torch.device("cpu")
    if torch.cuda.is_available():
        yield torch.device("cuda")


def table(
    columns: int, devices: Iterable[torch.device], all_rows: Iterable[int], steps: int
) -> Iterator[str]:
    """Measure, and yield the lines of the table.

    Args:
        columns: the size of the vocabulary.
        devices: the devices of the logits.
        all_rows: the numbers of rows of a batch.
        steps: the number of timed steps; of slow cases a tenth, but at least 3.
    """
    yield "| device | runner | budgets | rows | with a budget | mask, ms | step, ms | torch |"
    yield "|---|---|---|--:|--:|--:|--:|--:|"
    model = Model(columns)
    vocabulary = _vocabulary(model)
    with (
        torch.inference_mode(),
        patch.object(v1, "vocabulary_of", return_value=vocabulary),
        patch.object(v2, "vocabulary_of", return_value=vocabulary),
    ):
        for device, case, rows in product(devices, CASES, all_rows):
            for with_budget in _counts(case, rows):
                timed = steps if case is CASES[0] else max(3, steps // 10)
                for runner in _runners(with_budget):
                    mask, step, count = _measure(
                        runner, model, case, rows, with_budget, timed, device
                    )
                    yield (
                        f"| {device.type} | {runner.name} | {case.name} | {rows} | "
                        f"{with_budget} | {mask:.3f} | {step:.3f} | {count} |"
                    )


def _counts(case: Case, rows: int) -> list[int]:
    """Return the numbers of rows with a budget: half and all of them, and once none."""
    counts = {0, rows // 2, rows} if case is CASES[0] else {rows // 2, rows} - {0}
    return sorted(count for count in counts if count <= case.max_rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=50, help="timed steps of each kind")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=(1, 32, 256), help="sizes of a batch"
    )
    parser.add_argument("--columns", type=int, default=COLUMNS, help="size of the vocabulary")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for line in table(options.columns, list(_devices()), options.rows, options.steps):
        print(line, flush=True)


if __name__ == "__main__":
    main()
