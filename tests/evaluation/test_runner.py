"""Runs and reports by command, against a gateway over a fake engine."""

import argparse
import asyncio
import re
import shlex
import socket
import sys
from pathlib import Path

import pytest

from proctor.evaluation import cli
from proctor.evaluation.cli import add_arguments, execute, make_conditions
from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.runner import pending
from proctor.evaluation.store import Store, read_store
from proctor.evaluation.tasks import Question
from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from tests.evaluation.making import CONFIG, row
from tests.server.harness import running_server

QUESTIONS = [Question(str(number), f"{number} + 1?", str(number + 1)) for number in range(6)]
VARIED = ("--budgets", "0,5", "--continuations", "1", "--samples", "2")


def script(job: Job) -> Script:
    """Who may think is right, and who may not says 0."""
    prompt = bytes(token for token in job.prompt_ids if token < 256).decode()
    number = int(prompt.partition(" + 1?")[0].split()[-1])
    return Script(("abcdefgh",), str(number + 1) if job.budget.maximum else "0")


@pytest.fixture
def task(tmp_path: Path) -> Path:
    file = tmp_path / "task.jsonl"
    rows = (f'{{"question": "{each.text}", "answer": "{each.answer}"}}\n' for each in QUESTIONS)
    file.write_text("".join(rows))
    return file


def parsed(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(given)


async def proctor_eval(*given: str) -> int:
    return await asyncio.to_thread(execute, parsed(*given))


async def run(url: str, task: Path, *more: str) -> int:
    out = str(task.with_name("rows.jsonl"))
    common = ("run", str(task), "--model", "fake", "--base-url", f"{url}/v1", "--out", out)
    return await proctor_eval(*common, *more)


async def test_a_run_that_was_killed_goes_on(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = task.with_name("rows.jsonl")
    engine = FakeEngine(script)
    async with running_server(engine) as url:
        assert await run(url, task, "--budgets", "0", "--seed", "1") == 0
        with file.open("a") as cut:  # as by a kill in the middle of a line
            cut.write('{"setting": {"kind"')
        assert await run(url, task, *VARIED, "--seed", "1") == 0
        asked = len(engine.jobs)
        assert await run(url, task, *VARIED, "--seed", "1") == 0

    rows = read_store(file).rows
    assert asked == len(engine.jobs) == len(rows) == len({each.key for each in rows}) == 36
    assert {job.sampling.seed for job in engine.jobs} == {1, 2}
    assert {job.sampling.top_p for job in engine.jobs} == {0.95}
    told = capsys.readouterr().err
    assert "30 answers, at most 60 thinking tokens in the 18 with a cap" in told
    assert "25 answers remaining: about" in told
    assert "all answers are there already" in told


async def test_what_is_to_come_is_priced_by_the_server(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = {"prompt": "1", "thinking": "10", "answer": "10"}
    async with running_server(FakeEngine(script), prices=prices) as url:
        assert await run(url, task, *VARIED) == 0
        assert await run(url, task, *VARIED, "--budgets", "0,5,6") == 0

    told = re.sub(r"\s+", " ", capsys.readouterr().err)
    before_any, after_some = re.findall(
        r"36 answers, .*?answers remaining|12 answers, .*?remaining", told
    )
    assert "a cost of at most 1.47" in before_any
    assert "expected" not in before_any
    assert "an expected cost of" in after_some
    assert "tokens, a cost of 0.0" in told
    assert all(each.cost for each in read_store(task.with_name("rows.jsonl")).rows)


def test_a_run_that_is_cut_short_is_even() -> None:
    conditions = make_conditions([0, 4], votes=2)
    work = pending(conditions, QUESTIONS[:2], 1, [row(conditions[0], "1")])

    assert [(ask.condition.name, ask.question.id, ask.sample) for ask in work] == [
        *(("at most 0", "0", 0), ("at most 4", "0", 0), ("2 of at most 2", "0", 0)),
        *(("at most 4", "1", 0), ("2 of at most 2", "1", 0)),
        *(("2 of at most 2", "0", 1), ("2 of at most 2", "1", 1)),
    ]


async def test_what_cannot_be_scored_ends_the_run_before_it_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "task.jsonl"
    task.write_text('{"question": "1/4?", "answer": "\\\\frac{1}{4}"}\n')
    engine = FakeEngine(script)
    async with running_server(engine) as url:
        assert await run(url, task, "--budgets", "0") == 1

    assert "plain number" in capsys.readouterr().err
    assert not engine.jobs
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "nothing to compare"),
        (("--continuations", "1", "--budget-field", "thinking_budget"), "Proctor's own"),
        (("--budgets", "0", "--scorer", "none"), "no scorer 'none'"),
        (("--budgets", "0", "--model", "gpt"), "404"),
    ],
)
async def test_what_ends_a_run(
    given: tuple[str, ...], said: str, task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_server(FakeEngine(script)) as url:
        assert await run(url, task, *given) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("math_verify", ("run", "chains", "--budgets", "0", "--scorer", "math")),
        ("matplotlib", ("report", "rows.jsonl", "--folder", "report")),
    ],
)
def test_what_needs_the_extra_says_so(
    missing: str,
    command: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with Store(tmp_path / "rows.jsonl", CONFIG) as kept:
        kept.add(row(Condition(Kind.CAP, 5)))
    for loaded in [*sys.modules]:
        if loaded.partition(".")[0] == missing or loaded in (
            "proctor.evaluation.math_scorer",
            "proctor.evaluation.report.plots",
        ):
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.delattr("proctor.evaluation.report.plots", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)

    assert execute(parsed(*command)) == 1
    assert "the extra 'eval'" in capsys.readouterr().err


async def test_a_server_that_is_not_there(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        nowhere = f"http://127.0.0.1:{bound.getsockname()[1]}"
    assert await run(nowhere, task, *VARIED) == 1
    assert "cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize("page", ["quickstart.md", "guides/evaluate.md", "results/README.md"])
def test_commands_of_the_docs_are_understood(page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text().replace("\\\n", " ")
    commands = re.findall(r"^(?:\.venv/bin/)?proctor eval (.+)$", text, re.MULTILINE)

    assert commands
    for command in commands:
        options = parsed(*shlex.split(command))
        if options.eval_command == "run":
            assert make_conditions(
                options.budgets, options.continuations, options.tiers, options.efforts
            )


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--budgets", "few", "not a list of integers"),
        ("--at-a-time", "0", "not a positive integer"),
        ("--samples", "-1", "not a positive integer"),
        ("--count", "x", "not a positive integer"),
    ],
)
def test_an_option_that_is_wrong(
    option: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed("run", "task", option, value)
    assert said in capsys.readouterr().err


def test_control_c_keeps_what_came(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupt)
    assert execute(parsed("run", "task", "--out", "x.jsonl")) == 130
    assert "x.jsonl has the answers so far" in capsys.readouterr().err


async def test_a_report_by_command(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with running_server(FakeEngine(script)) as url:
        assert await run(url, task, *VARIED, "--votes", "2") == 0
    rows, folder = str(task.with_name("rows.jsonl")), task.with_name("report")

    assert execute(parsed("report", rows, "--large", rows, "--folder", str(folder))) == 0

    assert "Accuracy against the cap" in capsys.readouterr().out
    assert sorted(file.name for file in folder.iterdir()) == [
        *(
            f"rows-{name}.{form}"
            for name in ("cap", "continuations", "parallel")
            for form in ("png", "svg")
        ),
        *("rows.html", "rows.md"),
    ]
    told = (folder / "rows.md").read_text()
    assert "| at most 0 | 12 | 0.0% (0.0, 0.0) | 0 | 100.0% |  |  | ∞ | - |" in told
    assert "| at most 5 | 12 | 100.0% (100.0, 100.0) | 5 | 100.0% | +100.0 (+100.0" in told
    assert "![Accuracy against continuations](rows-continuations.svg)" in told
    kept = read_store(task.with_name("rows.jsonl"))
    (again,) = {each.tokens for each in kept.rows if each.condition == Condition(Kind.CAP, 5)}
    assert again == 5
    assert execute(parsed("report", str(task))) == 1
