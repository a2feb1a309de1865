"""lm-evaluation-harness, on a task of the project's own."""

import json
from pathlib import Path

from tests.clients.apart import CLIENTS, run
from tests.engine.served import Served

TASK = CLIENTS / "lm_eval"
QUESTIONS = len((TASK / "sums.jsonl").read_text().splitlines())
CAP = 64


async def test_a_task_within_a_budget(served: Served, tmp_path: Path) -> None:
    begun = set(served.engine.recordings)
    model = {
        "model": served.engine.model.name,
        "base_url": f"{served.url}/v1/chat/completions",
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

    jobs = set(served.engine.recordings) - begun
    thought = [len(served.engine.thinking_ids(job)) for job in jobs]
    assert score(tmp_path) >= 0.75
    assert len(jobs) == QUESTIONS
    assert 0 < max(thought) <= CAP
    assert {served.engine.recordings[job].job.budget.maximum for job in jobs} == {CAP}


def score(folder: Path) -> float:
    """The share of right answers in the results that were written there."""
    (written,) = folder.rglob("results_*.json")
    found: float = json.loads(written.read_text())["results"]["sums"]["exact_match,last-number"]
    return found
