"""Runs against a server: what is kept, what is asked again, what is reported."""

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from evaluation.asking import Examiner, Miscounted, Refused, Row, Setting
from evaluation.cli import add_arguments, execute, make_settings
from evaluation.report import to_markdown
from evaluation.running import BadStore, Store, outstanding, read_rows, run
from evaluation.scorers import numeric
from evaluation.tasks import Question
from server.engines.base import Job
from server.engines.fake import FakeEngine, Script
from tests.server.harness import listening

QUESTIONS = [Question(str(number), f"{number} + 1?", str(number + 1)) for number in range(6)]
SETTINGS = make_settings([0, 5], [1])


def script(job: Job) -> Script:
    """Who may think is right, and who may not says 0."""
    prompt = bytes(token for token in job.prompt_ids if token < 256).decode()
    number = int(prompt.partition(" + 1?")[0].split()[-1])
    return Script(("abcdefgh",), str(number + 1) if job.budget.maximum else "0")


async def examine(
    url: str, store: Path, work_of: int | None = None, settings: list[Setting] = SETTINGS
) -> None:
    async with httpx.AsyncClient(base_url=f"{url}/v1") as client:
        examiner = Examiner(client, "fake", numeric, 0.6, seed=1)
        with Store(store) as kept:
            work = outstanding(settings, QUESTIONS, 2, kept.rows)[:work_of]
            await run(examiner, work, kept, 4, lambda _: None)


async def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    engine = FakeEngine(script)
    async with listening(engine) as url:
        await examine(url, file, work_of=10)
        with file.open("a") as cut:  # as by a kill in the middle of a line
            cut.write('{"setting": "at most')
        await examine(url, file)
        asked = len(engine.jobs)
        await examine(url, file)

    rows = read_rows(file)
    assert asked == len(engine.jobs) == len(rows) == len({row.key for row in rows}) == 36
    assert {job.sampling.seed for job in engine.jobs} == {1, 2}


def test_to_open_a_store_leaves_what_is_there(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    row = Row("x", "q", 0, 1.0, "a\u2028", 1, 1, 1, None, 0, 0, None, 0.1)
    whole_line = json.dumps(row.to_json()) + "\n"
    file.write_text(whole_line + whole_line[:20])
    inode = file.stat().st_ino

    with Store(file) as kept:
        assert file.read_text() == whole_line  # before anything is written
        kept.add(row)

    assert file.read_text() == 2 * whole_line
    assert file.stat().st_ino == inode
    with pytest.raises(RuntimeError, match="not open"):
        Store(file).add(row)


def test_no_maximum_is_within_every_budget() -> None:
    (setting,) = make_settings([-1], [])

    assert (setting.name, setting.most) == ("no maximum", None)
    assert setting.fields == {"max_thinking_tokens": -1}


async def test_what_cannot_be_scored_ends_the_run_before_it_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "task.jsonl"
    task.write_text('{"question": "1/4?", "answer": "\\\\frac{1}{4}"}\n')
    out = tmp_path / "rows.jsonl"
    engine = FakeEngine(script)
    async with listening(engine) as url:
        given = ["run", str(task), "--base-url", f"{url}/v1", "--out", str(out)]
        status = await asyncio.to_thread(execute, _parsed(given))

    assert status == 1
    assert "plain number" in capsys.readouterr().err
    assert not engine.jobs
    assert not out.exists()


def _parsed(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(given)


async def test_what_a_run_says(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    async with listening(FakeEngine(script)) as url:
        await examine(url, file)

    rows = read_rows(file)
    by_setting = {row.setting: row for row in rows}
    assert by_setting["at most 0"].tokens == 0
    assert (by_setting["at most 5"].tokens, by_setting["at most 5"].end_reason) == (5, "max")
    assert by_setting["1 continuations"].continuations == 1
    told = to_markdown(rows, SETTINGS)
    assert "| at most 0 | 12 | 0.0% (0.0% to 0.0%) | 0 | 100% |" in told
    assert "| at most 5 | 12 | 100.0% (100.0% to 100.0%) | 5 | 100% | +100.0" in told
    assert "pays" in told
    assert "| inf |" in told
    assert "- Surely better than at most 0: at most 5" in told
    with pytest.raises(ValueError, match="no samples"):
        to_markdown([], SETTINGS)


async def test_a_busy_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = [429, 503, 200]
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    def answer(request: httpx.Request) -> httpx.Response:
        status = statuses.pop(0)
        return httpx.Response(status, json=whole(), headers={"retry-after": "3"})

    monkeypatch.setattr(asyncio, "sleep", note)
    async with httpx.AsyncClient(
        base_url="http://x/v1", transport=httpx.MockTransport(answer)
    ) as client:
        row = await Examiner(client, "m", numeric, 0, 0).ask(Setting("x"), QUESTIONS[0], 0)

    assert row.score == 1
    assert [wait >= 3 for wait in waits] == [True, True]


def whole(**more: Any) -> dict[str, Any]:
    return {
        "choices": [{"message": {"content": "1"}, "logprobs": None, **more}],
        "usage": {
            "prompt_tokens": 1,
            "completion_tokens": 3,
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    }


@pytest.mark.parametrize(
    ("status", "told", "error"),
    [
        (400, {"error": {"message": "no"}}, Refused),
        (200, whole(logprobs={"reasoning_content": [{}] * 3}), Miscounted),
    ],
)
async def test_what_ends_a_run(
    status: int, told: dict[str, Any], error: type[Exception], tmp_path: Path
) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, json=told))
    async with httpx.AsyncClient(base_url="http://x/v1", transport=transport) as client:
        examiner = Examiner(client, "m", numeric, 0, 0)
        with Store(tmp_path / "rows.jsonl") as kept, pytest.raises(error):
            await run(examiner, outstanding(SETTINGS, QUESTIONS, 1, []), kept, 4, lambda _: None)


def test_a_file_of_something_else(tmp_path: Path) -> None:
    file = tmp_path / "other.jsonl"
    file.write_text(json.dumps({"question": "x"}) + "\n")
    with pytest.raises(BadStore):
        Store(file)
    assert file.read_text()
