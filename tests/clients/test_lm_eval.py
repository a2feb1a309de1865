"""lm-evaluation-harness, on two small tasks."""

import json
from pathlib import Path

from tests.clients.client_process import CLIENTS, run
from tests.engine.gateway import Gateway

TASK = CLIENTS / "lm_eval"
QUESTIONS = len((TASK / "sums.jsonl").read_text().splitlines())
CAP = 64
TOKENIZER = CLIENTS.parent.parent / "demo" / "model"


async def test_chat_completions_with_a_budget(vllm_gateway: Gateway, tmp_path: Path) -> None:
    earlier = set(vllm_gateway.engine.recordings)
    model = {
        "model": vllm_gateway.engine.model.name,
        "base_url": f"{vllm_gateway.url}/v1/chat/completions",
        "num_concurrent": "8",
    }
    await run(
        [
            *("lm_eval", "run", "--model", "local-chat-completions", "--apply_chat_template"),
            *("--model_args", ",".join(f"{name}={value}" for name, value in model.items())),
            *("--include_path", ".", "--tasks", "sums", "--output_path", str(tmp_path)),
            *("--gen_kwargs", f"max_thinking_tokens={CAP},max_gen_toks=512"),
        ],
        TASK,
        HF_HOME=str(tmp_path),
    )

    jobs = set(vllm_gateway.engine.recordings) - earlier
    thinking_tokens = [len(vllm_gateway.engine.thinking_ids(job)) for job in jobs]
    assert score(tmp_path) >= 0.75
    assert len(jobs) == QUESTIONS
    assert 0 < max(thinking_tokens) <= CAP
    assert {vllm_gateway.engine.recordings[job].job.budget.maximum for job in jobs} == {CAP}


async def test_raw_completions(vllm_gateway: Gateway, tmp_path: Path) -> None:
    earlier = set(vllm_gateway.engine.recordings)
    kwargs = "max_thinking_tokens=0,max_gen_toks=64"
    await evaluate(vllm_gateway, "sums", tmp_path, "--gen_kwargs", kwargs, "--apply_chat_template")

    jobs = set(vllm_gateway.engine.recordings) - earlier
    assert len(jobs) == QUESTIONS
    assert {vllm_gateway.engine.recordings[job].job.sampling.max_tokens for job in jobs} == {64}
    assert 0 <= score(tmp_path) <= 1


async def test_loglikelihoods(vllm_gateway: Gateway, tmp_path: Path) -> None:
    """The model begins its calculation with the number in the question."""
    earlier = set(vllm_gateway.engine.recordings)
    await evaluate(vllm_gateway, "starts", tmp_path)

    jobs = [
        vllm_gateway.engine.recordings[job].job
        for job in set(vllm_gateway.engine.recordings) - earlier
    ]
    assert len(jobs) == len((TASK / "starts.jsonl").read_text().splitlines()) * 2
    assert {job.sampling.prompt_logprobs for job in jobs} == {1}
    assert score(tmp_path, "starts", "acc,none") == 1


async def evaluate(gateway: Gateway, task: str, folder: Path, *more: str) -> None:
    """Run a task with raw prompts of token ids, from the model's tokenizer."""
    model = {
        "model": gateway.engine.model.name,
        "base_url": f"{gateway.url}/v1/completions",
        "tokenizer_backend": "huggingface",
        "tokenizer": str(TOKENIZER),
        "num_concurrent": "4",
        "max_length": str(gateway.engine.model.context_length),
    }
    await run(
        [
            *("lm_eval", "run", "--model", "local-completions"),
            *("--model_args", ",".join(f"{name}={value}" for name, value in model.items())),
            *("--include_path", ".", "--tasks", task, "--output_path", str(folder), *more),
        ],
        TASK,
        HF_HOME=str(folder),
    )


def score(folder: Path, task: str = "sums", metric: str = "exact_match,last-number") -> float:
    """Return a metric from the results in a folder."""
    (results,) = folder.rglob("results_*.json")
    value: float = json.loads(results.read_text())["results"][task][metric]
    return value
