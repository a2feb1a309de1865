"""The commands `proctor eval run` and `report`, against a gateway with a fake engine."""

import argparse
import asyncio
import re
import shlex
import socket
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from proctor.evaluation import cli
from proctor.evaluation.cli import add_arguments, execute, make_conditions
from proctor.evaluation.client import RequestRefused, ServerClient
from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.runner import pending
from proctor.evaluation.runner import run as send
from proctor.evaluation.scorers import NUMERIC
from proctor.evaluation.store import Store, read_store
from proctor.evaluation.tasks import Question
from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from tests.evaluation.factories import CONFIG, row
from tests.server.harness import running_server

QUESTIONS = [Question(str(number), f"{number} + 1?", str(number + 1)) for number in range(6)]
VARIED = ("--budgets", "0,5", "--continuations", "1", "--samples", "2")


def script(job: Job) -> Script:
    """Answer right if thinking is allowed, and 0 otherwise."""
    prompt = bytes(token for token in job.prompt_ids if token < 256).decode()
    number = int(prompt.partition(" + 1?")[0].split()[-1])
    return Script(("abcdefgh",), str(number + 1) if job.budget.maximum else "0")


@pytest.fixture
def task(tmp_path: Path) -> Path:
    file = tmp_path / "task.jsonl"
    rows = (f'{{"question": "{each.text}", "answer": "{each.answer}"}}\n' for each in QUESTIONS)
    file.write_text("".join(rows))
    return file


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


async def proctor_eval(*arguments: str) -> int:
    return await asyncio.to_thread(execute, parse(*arguments))


async def run(url: str, task: Path, *options: str) -> int:
    out = str(task.with_name("rows.jsonl"))
    common = ("run", str(task), "--model", "fake", "--base-url", f"{url}/v1", "--out", out)
    return await proctor_eval(*common, *options)


async def test_a_killed_run_is_resumed(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = task.with_name("rows.jsonl")
    engine = FakeEngine(script)
    async with running_server(engine) as url:
        assert await run(url, task, "--budgets", "0", "--seed", "1") == 0
        with file.open("a") as cut:  # as by a kill in the middle of a line
            cut.write('{"setting": {"kind"')
        assert await run(url, task, *VARIED, "--seed", "1") == 0
        jobs_before = len(engine.jobs)
        assert await run(url, task, *VARIED, "--seed", "1") == 0

    rows = read_store(file).rows
    assert jobs_before == len(engine.jobs) == len(rows) == len({each.key for each in rows}) == 36
    assert {job.sampling.seed for job in engine.jobs} == {1, 2}
    assert {job.sampling.top_p for job in engine.jobs} == {0.95}
    progress = capsys.readouterr().err
    assert "30 answers, at most 60 thinking tokens in the 18 with a cap" in progress
    assert "25 answers remaining: about" in progress
    assert "all answers are there already" in progress


@pytest.mark.slow
async def test_the_cost_of_pending_answers_is_priced_by_the_server(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = {"prompt": "1", "thinking": "10", "answer": "10"}
    async with running_server(FakeEngine(script), prices=prices) as url:
        assert await run(url, task, *VARIED) == 0
        assert await run(url, task, *VARIED, "--budgets", "0,5,6") == 0

    progress = re.sub(r"\s+", " ", capsys.readouterr().err)
    before_any, after_some = re.findall(
        r"36 answers, .*?answers remaining|12 answers, .*?remaining", progress
    )
    assert "a cost of at most 1.47" in before_any
    assert "expected" not in before_any
    assert "an expected cost of" in after_some
    assert "tokens, a cost of 0.0" in progress
    assert all(each.cost for each in read_store(task.with_name("rows.jsonl")).rows)


def test_pending_work_covers_conditions_evenly() -> None:
    conditions = make_conditions([0, 4], votes=2)
    work = pending(conditions, QUESTIONS[:2], 1, [row(conditions[0], "1")])

    assert [(item.condition.name, item.question.id, item.sample) for item in work] == [
        *(("at most 0", "0", 0), ("at most 4", "0", 0), ("2 of at most 2", "0", 0)),
        *(("at most 4", "1", 0), ("2 of at most 2", "1", 0)),
        *(("2 of at most 2", "0", 1), ("2 of at most 2", "1", 1)),
    ]


async def test_a_run_can_go_on_after_requests_that_are_invalid(tmp_path: Path) -> None:
    refused: list[RequestRefused] = []
    questions = [QUESTIONS[0], Question("long", "1 + 1? " + "x" * 40_000, "2"), QUESTIONS[2]]
    config = replace(CONFIG, model="fake")
    async with (
        running_server(FakeEngine(script)) as url,
        httpx.AsyncClient(base_url=f"{url}/v1") as http,
    ):
        client = ServerClient(http, config, NUMERIC)
        work = pending([Condition(Kind.CAP, 5)], questions, 1, ())
        with Store(tmp_path / "rows.jsonl", config) as store:
            await send(client, work, store, 1, lambda _: None, refused.append)
            with pytest.raises(RequestRefused, match="400"):
                await send(client, work, store, 1, lambda _: None)
            unknown = ServerClient(http, replace(config, model="gpt"), NUMERIC)
            with pytest.raises(RequestRefused, match="404"):  # of every request, not of this one
                await send(unknown, work, store, 1, lambda _: None, refused.append)

    assert [each.status for each in refused] == [400]
    assert [each.question for each in store.rows] == ["0", "2", "0"]


async def test_an_unscorable_task_ends_the_run_before_any_request(
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
    ("options", "message"),
    [
        ((), "nothing to compare"),
        (("--continuations", "1", "--budget-field", "thinking_budget"), "Proctor's own"),
        (
            ("--budgets", "4", "--early-exit", "entropy", "--budget-field", "thinking_budget"),
            "Proctor's own",
        ),
        (("--budgets", "0", "--scorer", "none"), "no scorer 'none'"),
        (("--budgets", "0", "--model", "gpt"), "404"),
    ],
)
async def test_errors_end_a_run_with_a_message(
    options: tuple[str, ...], message: str, task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_server(FakeEngine(script)) as url:
        assert await run(url, task, *options) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("math_verify", ("run", "chains", "--budgets", "0", "--scorer", "math")),
        ("matplotlib", ("report", "rows.jsonl", "--folder", "report")),
    ],
)
def test_a_missing_extra_is_named(
    missing: str,
    command: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with Store(tmp_path / "rows.jsonl", CONFIG) as stored:
        stored.add(row(Condition(Kind.CAP, 5)))
    for loaded in [*sys.modules]:
        if loaded.partition(".")[0] == missing or loaded in (
            "proctor.evaluation.math_scorer",
            "proctor.evaluation.report.plots",
        ):
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.delattr("proctor.evaluation.report.plots", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)

    assert execute(parse(*command)) == 1
    assert "the extra 'eval'" in capsys.readouterr().err


async def test_an_unreachable_server_ends_the_run(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        unused_url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    assert await run(unused_url, task, *VARIED) == 1
    assert "cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize("page", ["quickstart.md", "guides/evaluate.md", "results/README.md"])
def test_commands_of_the_docs_are_parsed(page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text().replace("\\\n", " ")
    commands = re.findall(r"^(?:\.venv/bin/)?proctor eval (.+)$", text, re.MULTILINE)

    assert commands
    for command in commands:
        options = parse(*shlex.split(command))
        if options.eval_command == "run":
            assert make_conditions(
                options.budgets,
                options.continuations,
                options.tiers,
                options.efforts,
                early_exits=options.early_exit,
                parallels=options.parallel,
            )


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--budgets", "few", "not a list of integers"),
        ("--at-a-time", "0", "not a positive integer"),
        ("--early-exit", "entropy,guess", "'guess' is not one of entropy, answer, confidence"),
        ("--parallel", "vote", "'vote' is not a positive integer"),
        ("--samples", "-1", "not a positive integer"),
        ("--count", "x", "not a positive integer"),
    ],
)
def test_an_invalid_option_is_refused(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse("run", "task", option, value)
    assert message in capsys.readouterr().err


def test_control_c_keeps_the_answers_so_far(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupt)
    assert execute(parse("run", "task", "--out", "x.jsonl")) == 130
    assert "x.jsonl has the answers so far" in capsys.readouterr().err


@pytest.mark.slow
async def test_the_report_command(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with running_server(FakeEngine(script)) as url:
        assert await run(url, task, *VARIED, "--votes", "2") == 0
    rows, folder = str(task.with_name("rows.jsonl")), task.with_name("report")

    assert execute(parse("report", rows, "--large", rows, "--folder", str(folder))) == 0

    assert "Accuracy against the cap" in capsys.readouterr().out
    assert sorted(file.name for file in folder.iterdir()) == [
        *(
            f"rows-{name}.{form}"
            for name in ("cap", "continuations", "frontier", "parallel")
            for form in ("png", "svg")
        ),
        *("rows.html", "rows.md"),
    ]
    report = (folder / "rows.md").read_text()
    assert "| at most 0 | 12 | 0.0% (0.0, 0.0) | 0 | 100.0% |  |  | ∞ | - |" in report
    assert "| at most 5 | 12 | 100.0% (100.0, 100.0) | 5 | 100.0% | +100.0 (+100.0" in report
    assert "![Accuracy against continuations](rows-continuations.svg)" in report
    stored = read_store(task.with_name("rows.jsonl"))
    (tokens,) = {each.tokens for each in stored.rows if each.condition == Condition(Kind.CAP, 5)}
    assert tokens == 5
    assert execute(parse("report", str(task))) == 1
