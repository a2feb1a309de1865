"""The whole loop on the demo model: curate, train, serve, evaluate."""

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from proctor.demo.world import ANSWER, Passes, draw_problem, phrase, two_digits
from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.store import read_store
from proctor.server.cli.main import main
from proctor.server.config.settings import DEMO
from tests.engine.client import ask, assert_budget_kept, body
from tests.engine.gateway import Gateway, running_gateway
from tests.training.command import train

pytestmark = pytest.mark.engine

PROBLEMS = 24
COPIES = 3
CUT = 3
STEPS = (1, 6)
"""Of problems that the model solves without thinking, and of those for which it must think."""

SIZE = 6


def write_pool(path: Path) -> None:
    """Write problems with traces, of which some are cut, and copies of some."""
    rng = Random(20261130)
    rows = [row(f"q{number}", rng, STEPS[number % 2]) for number in range(PROBLEMS)]
    copies = [{**each, "id": f"copy of {each['id']}"} for each in rows[:COPIES]]
    for each in rows[-CUT:]:
        each["trace"] = each["trace"][: len(each["trace"]) // 2]
    path.write_text("".join(json.dumps(each) + "\n" for each in rows + copies))


def row(name: str, rng: Random, steps: int) -> dict[str, str]:
    problem = draw_problem(rng, steps)
    passes = Passes(problem)
    lines = [head + result for head, result, _ in passes.hasty()]
    answer = two_digits(problem.answer)
    return {
        "id": name,
        "question": phrase(problem, rng),
        "trace": "\n".join([*lines, f"{passes.closing()}{answer}"]),
        "answer": ANSWER.format(answer),
        "reference": answer,
        "domain": f"{steps} steps",
    }


def write_recipe(path: Path, gateway: Gateway) -> None:
    path.write_text(f"""
model = "{DEMO / "model"}"
seed = 3

[[inputs]]
path = "pool.jsonl"

[[stages]]
stage = "quality"

[[stages]]
stage = "deduplication"

[[stages]]
stage = "difficulty"

[stages.models.demo]
model = "{gateway.engine.model.name}"
base_url = "{gateway.url}/v1"

[select]
by = "longest"
size = {SIZE}

[output]
form = "messages"
block_size = 512
""")


def test_what_is_curated_can_be_trained_on_served_and_measured(
    vllm_gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pool(tmp_path / "pool.jsonl")
    recipe = tmp_path / "recipe.toml"
    write_recipe(recipe, vllm_gateway)
    curated = tmp_path / "curated"
    for command in ("measure", "run"):
        arguments = ["curate", command, str(recipe), "--out", str(curated)]
        assert main(arguments) == 0, capsys.readouterr()

    dropped = [json.loads(line) for line in (curated / "dropped.jsonl").read_text().splitlines()]
    by_stage: dict[str, set[str]] = {}
    for each in dropped:
        by_stage.setdefault(each["step"], set()).add(each["id"])
    assert by_stage["deduplication"] == {f"copy of q{number}" for number in range(COPIES)}
    assert by_stage["quality"] == {f"q{number}" for number in range(PROBLEMS - CUT, PROBLEMS)}
    chosen = [json.loads(line) for line in (curated / "rows.jsonl").read_text().splitlines()]
    assert len(chosen) == SIZE
    # The demo model solves single steps without thinking, and nearly no chain of six.
    assert {each["domain"] for each in chosen} == {f"{STEPS[1]} steps"}

    out = tmp_path / "trained"
    done = train(
        *(curated / "rows.jsonl", "--model", DEMO / "model", "--out", out),
        *("--max-steps", 2, "--batch", 2, "--learning-rate", "1e-5"),
    )
    assert done.returncode == 0, done.stdout + done.stderr

    with running_gateway(model=str(out / "model"), served_model_name="taught") as taught:
        asyncio.run(check_budget(taught))
        measure(taught, tmp_path / "eval.jsonl")


async def check_budget(gateway: Gateway) -> None:
    fields: dict[str, Any] = {
        "max_thinking_tokens": 40,
        "min_thinking_tokens": 30,
        "temperature": 0,
        "thinking": {"landing": "hard", "on_loop": "off"},
    }
    request = body(gateway, "Start with 7, add 5, times 3.", **fields)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=300) as http:
        assert_budget_kept(gateway, request, await ask(http, request))


def measure(gateway: Gateway, out: Path) -> None:
    """Check that the model still is what it was, after two small steps: it needs to think."""
    arguments = ["eval", "run", "chains", "--base-url", f"{gateway.url}/v1", "--out", str(out)]
    arguments += ["--model", "taught", "--count", "20", "--budgets", "0", "--continuations", "2"]
    assert main(arguments) == 0
    right = dict.fromkeys((Condition(Kind.CAP, 0), Condition(Kind.CONTINUATIONS, 2)), 0.0)
    for each in read_store(out).rows:
        right[each.condition] += each.score
    assert right[Condition(Kind.CONTINUATIONS, 2)] > 10 > right[Condition(Kind.CAP, 0)]
