"""`python -m bench.gpu` runs where there is no GPU, on what a CPU can run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.gpu import control
from bench.gpu.control import CONFIGURATIONS, bodies, row, table
from bench.throughput import MODEL
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

SMALL = "--requests 4 --rows 1 --steps 1 --streams 1 --rounds 1"
OPENS, CLOSES = 1, 2


def answer(thinking: int, reported: int) -> dict[str, object]:
    """Return a response that opens a block, thinks, and answers with one token."""
    return {
        "choices": [{"token_ids": [OPENS, *[3] * thinking, CLOSES, 4]}],
        "usage": {
            "completion_tokens": thinking + 3,
            "completion_tokens_details": {"reasoning_tokens": reported},
        },
    }


def test_broken_budgets_and_wrong_usage_are_counted() -> None:
    limits = {"min_thinking_tokens": 2, "max_thinking_tokens": 4}
    answers = [answer(1, 1), answer(2, 2), answer(4, 3), answer(5, 5)]
    assert row([limits] * 4, answers, OPENS, CLOSES, seconds=2.0) == "4 | 2 | 1 | 12"


def test_requests_have_satisfiable_budgets() -> None:
    for body in bodies(200):
        assert 0 <= body["min_thinking_tokens"] <= body["max_thinking_tokens"]
        assert 0 < body["max_thinking_tokens"] < body["max_tokens"]


def test_a_configuration_that_does_not_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(side: object) -> object:
        raise RuntimeError("it exited with status 1")

    monkeypatch.setattr(control, "serving", refuse)
    lines = list(table(str(MODEL), {}, count=1))
    tried = [each for each in CONFIGURATIONS if each.refusal is None]
    assert [f"{each} it exited with status 1 | | | |" for each in tried] == [
        line for line in lines if "exited" in line
    ]


def test_the_command_measures_what_this_machine_can_run(tmp_path: Path) -> None:
    output = tmp_path / "gpu.md"
    command = [sys.executable, "-m", "bench.gpu", *SMALL.split(), "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, timeout=3 * PATIENCE)
    text = output.read_text(encoding="utf-8")

    assert re.findall("^## (.*)", text, re.MULTILINE) == [
        "Budgets",
        "The logits processor, per step",
        "Throughput",
    ]
    measured = [each for each in CONFIGURATIONS if each.refusal is None]
    assert measured
    for configuration in measured:
        assert re.search(rf"^{re.escape(str(configuration))} 4 \| 0 \| 0 \| \d+ \|$", text, re.M)
    assert text.count("needs a GPU") == sum(
        each.refusal == "needs a GPU" for each in CONFIGURATIONS
    )
    assert re.search(r"^\| gateway / vLLM's API server \| 1 \|( [\d.e+]+ \|){15}$", text, re.M)
