"""Measure budgets on this machine's GPU: one command, one text.

    python -m bench.gpu --model Qwen/Qwen3-0.6B --output gpu.md

Three tables: whether every budget holds on both runners, with and without speculation and CUDA
graphs; what the logits processor costs per step; tokens/s against `vllm serve`. Requires the
GPU extra (`pip install 'proctor[engine-gpu]'`). Without a GPU, it measures what a CPU can run.
"""

import argparse
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
import vllm

from bench import processor, throughput
from bench.gpu import control


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Measure, and yield the lines of the text."""
    yield f"# {device_name()}, {datetime.now(UTC):%Y-%m-%d}\n"
    yield f"Proctor {version('proctor')}, vLLM {vllm.__version__}, torch {torch.__version__}, "
    yield f"{options.model}, engine arguments {json.dumps(options.engine)}.\n"

    yield "## Budgets\n"
    yield from control.table(options.model, options.engine, options.requests)

    yield "\n## The logits processor, per step\n"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    yield from processor.table(processor.COLUMNS, [device], options.rows, options.steps)

    yield "\n## Throughput\n"
    yield throughput.header()
    pair = (
        throughput.Side(
            "gateway", partial(throughput.gateway, model=options.model, engine=options.engine), {}
        ),
        throughput.Side(
            "vLLM's API server",
            partial(throughput.vllm_server, model=options.model, engine=options.engine),
            {},
        ),
    )
    yield from throughput.compare(pair, options.streams, options.rounds, per_stream=4)


def device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(throughput.MODEL))
    parser.add_argument(
        "--engine",
        type=json.loads,
        # Two servers share the GPU while their throughput is compared.
        default={"max_model_len": 2048, "gpu_memory_utilization": 0.4},
        help="vLLM's engine arguments, in JSON",
    )
    parser.add_argument("--requests", type=int, default=256, help="for each configuration")
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a file for the text")
    options = parser.parse_args()
    text = ""
    for line in lines(options):
        print(line, flush=True)
        text += f"{line}\n"
        if options.output is not None:
            options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
