"""`proctor curate measure`, against gateways with fake engines."""

import argparse
import asyncio
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from proctor.curation import cli
from proctor.curation.difficulty.rule import Mode
from proctor.evaluation.store import read_store
from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from tests.server.harness import running_server
from tests.waiting import PATIENCE

ROWS = 12
COMMAND = """
import argparse
import sys
from proctor.curation import cli
parser = argparse.ArgumentParser()
cli.add_arguments(parser)
raise SystemExit(cli.execute(parser.parse_args(sys.argv[1:])))
"""


def number_of(job: Job) -> int:
    prompt = bytes(token for token in job.prompt_ids if token < 256).decode()
    return int(prompt.partition(" + 1?")[0].split()[-1])


def mode_of(job: Job) -> Mode:
    return Mode.THINKING if job.budget.maximum else Mode.WITHOUT


def script(job: Job) -> Script:
    """Answer every third question right always, every third with thinking only, others never."""
    number = number_of(job)
    right = number % 3 == 0 or (number % 3 == 1 and mode_of(job) == Mode.THINKING)
    return Script(("abcdefgh",), str(number + 1 if right else 0))


def never(job: Job) -> Script:
    return Script(("abcdefgh",), "0")


def asked(jobs: Sequence[Job]) -> Counter[tuple[int, Mode]]:
    return Counter((number_of(job), mode_of(job)) for job in jobs)


def recipe(
    folder: Path,
    models: dict[str, str],
    stages: str = "",
    thinking: str = "{ cap = 8 }",
    **fields: Any,
) -> Path:
    """Write a recipe over `ROWS` rows, with a model behind each URL."""
    rows = [
        {"question": f"{number} + 1?", "answer": f"It is {number + 1}."}
        | {"thinking": f"I have to add {number} and 1. So the answer is {number + 1}."}
        | {"solution": str(number + 1), "id": f"r{number}"}
        for number in range(ROWS)
    ]
    rows.append({"question": "Why?", "thinking": "so", "answer": "because", "id": "open"})
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tables = "".join(
        f'[stages.models.{name}]\nmodel = "fake"\nbase_url = "{url}/v1"\nconcurrency = 3\n'
        + f"thinking = {thinking}\n"
        + ("only_without = true\n" if name == "easy" else "")
        for name, url in models.items()
    )
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())
    file = folder / "recipe.toml"
    file.write_text(
        f'[[inputs]]\npath = "pool.jsonl"\n{stages}'
        f'[[stages]]\nstage = "difficulty"\n{lines}{tables}'
    )
    return file


async def curate(command: str, file: Path, *options: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    out = str(file.parent / "out")
    parsed = parser.parse_args([command, str(file), "--out", out, *options])
    return await asyncio.to_thread(cli.execute, parsed)


def measure_process(file: Path) -> "subprocess.Popen[bytes]":
    out = str(file.parent / "out")
    command = [sys.executable, "-c", COMMAND, "measure", str(file), "--out", out]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def manifest_reasons(folder: Path) -> dict[str, int]:
    steps = json.loads((folder / "out" / "manifest.json").read_text())["steps"]
    (reasons,) = (step["reasons"] for step in steps if step["step"] == "difficulty")
    return dict(reasons)


async def test_a_row_is_kept_by_its_measured_reasoning_delta(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine(script)
    async with running_server(engine) as url:
        file = recipe(tmp_path, {"small": url})
        assert await curate("measure", file) == 0
        first = asked(engine.jobs)
        assert await curate("measure", file) == 0
        assert asked(engine.jobs) == first  # what is measured is not asked again
    assert await curate("run", file) == 0

    third = ROWS // 3
    # With thinking only what fails without is asked.
    assert set(first.values()) == {1}
    assert Counter(mode for _, mode in first) == {Mode.WITHOUT: ROWS, Mode.THINKING: 2 * third}
    assert manifest_reasons(tmp_path) == {
        "solved without thinking": third,
        "not solved with thinking": third,
        "no reference answer": 1,
    }
    kept = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert len(kept) == third
    assert {row["messages"][0]["content"] for row in kept} == {
        f"{number} + 1?" for number in range(1, ROWS, 3)
    }
    progress = capsys.readouterr().err
    assert f"{ROWS} different questions" in progress
    assert "1 rows cannot be measured: no reference answer" in progress
    assert f"small, at most 8: at most {ROWS} answers" in re.sub(r"\s+", " ", progress)


async def test_the_price_is_told_beforehand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine(script)
    prices = {"prompt": "1", "thinking": "10", "answer": "10"}
    async with running_server(engine, prices=prices) as url:
        file = recipe(tmp_path, {"small": url})
        assert await curate("measure", file, "--dry-run") == 0
    told = re.sub(r"\s+", " ", capsys.readouterr().err)

    assert not engine.jobs
    assert not (tmp_path / "measured").exists()
    assert re.search(r"small, tier none: 12 answers, a cost of at most [\d.]+", told)
    assert re.search(r"small, at most 8: at most 12 answers, .*, a cost of at most [\d.]+", told)


async def test_several_models_judge_together(tmp_path: Path) -> None:
    """`easy` solves every third question; of the others `weak` solves none, `small` a half."""
    engines = {"easy": FakeEngine(script), "weak": FakeEngine(never), "small": FakeEngine(script)}
    async with (
        running_server(engines["easy"]) as easy,
        running_server(engines["weak"]) as weak,
        running_server(engines["small"]) as small,
    ):
        file = recipe(tmp_path, {"weak": weak, "easy": easy, "small": small}, samples=2)
        assert await curate("measure", file) == 0
    assert await curate("run", file) == 0

    modes = {name: asked(engine.jobs) for name, engine in engines.items()}
    without = {(number, Mode.WITHOUT): 2 for number in range(ROWS)}
    thinking = {(number, Mode.THINKING): 2 for number in range(ROWS) if number % 3}
    assert modes == {"easy": without, "weak": without | thinking, "small": without | thinking}
    third = ROWS // 3
    assert manifest_reasons(tmp_path) == {
        "solved without thinking": third,
        "not solved with thinking": third,
        "no reference answer": 1,
    }


async def test_only_rows_that_reach_the_stage_are_measured(tmp_path: Path) -> None:
    engine = FakeEngine(script)
    async with running_server(engine) as url:
        stages = '[[stages]]\nstage = "quality"\n'
        file = recipe(tmp_path, {"small": url}, stages)
        pool = tmp_path / "pool.jsonl"
        pool.write_text(pool.read_text().replace("So the answer is 5.", ""))
        assert await curate("measure", file) == 0
    assert {number for number, _ in asked(engine.jobs)} == {*range(ROWS)} - {4}


async def test_a_killed_measurement_is_resumed(tmp_path: Path) -> None:
    processes: list[subprocess.Popen[bytes]] = []

    def kill_at_the_ninth(job: Job) -> Script:
        if len(engine.jobs) == 9:
            processes[0].kill()
        return script(job)

    engine = FakeEngine(kill_at_the_ninth)
    async with running_server(engine) as url:
        file = recipe(tmp_path, {"small": url})
        processes.append(await asyncio.to_thread(measure_process, file))
        assert await asyncio.to_thread(processes[0].wait, PATIENCE) == -9

        stored = tmp_path / "measured" / "small.jsonl"
        survived = {(row.question, row.condition) for row in read_store(stored).rows}
        before = len(engine.jobs)
        assert await curate("measure", file) == 0

    rows = read_store(stored).rows
    assert 0 < len(survived) < 9
    assert survived < {(row.question, row.condition) for row in rows}
    assert len(rows) == len({row.key for row in rows}) == ROWS + 2 * ROWS // 3
    assert len(engine.jobs) - before == len(rows) - len(survived)
    assert await curate("run", file) == 0
    assert "not measured" not in manifest_reasons(tmp_path)


async def test_a_refused_question_is_not_measured_and_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine(script)
    async with running_server(engine) as url:
        file = recipe(tmp_path, {"small": url})
        pool = tmp_path / "pool.jsonl"
        pool.write_text(pool.read_text().replace("7 + 1?", "7 + 1?" + "x" * 40_000))
        assert await curate("measure", file) == 0
    assert await curate("run", file) == 0

    assert "1 requests were refused; the last: 400" in capsys.readouterr().err
    assert manifest_reasons(tmp_path)["not measured"] == 1
    assert 7 not in {number for number, _ in asked(engine.jobs)}


async def test_a_pool_that_cannot_be_measured_is_measured_at_once(tmp_path: Path) -> None:
    file = recipe(tmp_path, {"small": "http://127.0.0.1:9"}, scorer="regex")
    pool = tmp_path / "pool.jsonl"
    pool.write_text(pool.read_text().splitlines()[-1] + "\n")
    assert await curate("measure", file) == 0
    assert await curate("run", file) == 0
    assert manifest_reasons(tmp_path) == {"no reference answer": 1}


async def test_a_server_that_refuses_everything_ends_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine(script)
    async with running_server(engine) as url:
        file = recipe(tmp_path, {"small": url}, thinking='{ tier = "huge" }')
        assert await curate("measure", file) == 1
    assert "huge" in capsys.readouterr().err
    assert len(engine.jobs) == ROWS  # those without thinking


async def test_an_unmeasured_recipe_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recipe(tmp_path, {"small": "http://127.0.0.1:9"})
    assert await curate("run", file) == 1
    assert "run `proctor curate measure` first" in capsys.readouterr().err

    file.write_text('[[inputs]]\npath = "pool.jsonl"\n')
    assert await curate("measure", file) == 1
    assert "no stage 'difficulty'" in capsys.readouterr().err
