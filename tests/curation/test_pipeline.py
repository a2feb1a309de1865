"""Runs: nothing is lost, the same bytes each time, and after an interruption at any point."""

import json
import random
import signal
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proctor.curation import recipe as recipes
from proctor.curation.errors import CurationError
from proctor.curation.options import Context
from proctor.curation.recipe import Recipe, parse_recipe
from proctor.curation.run import pipeline
from proctor.curation.run.manifest import write_manifest
from proctor.curation.run.pipeline import Pipeline, Result
from proctor.curation.run.report import sections, write_report
from proctor.curation.selection import Candidate, ClassifierOptions, SelectorOptions
from proctor.curation.storage import digest_of_file
from tests.curation.factories import ANSWER, QUESTION, TRACE, write_lines

STAGES = [
    {"stage": "quality", "languages": ["en"]},
    {"stage": "deduplication"},
    {"stage": "reasoning"},
]
OUTPUTS = ("rows.jsonl", "dropped.jsonl", "manifest.json", "report.md", "report.html")


class Interrupted(BaseException):
    """Stands for a kill: no handler of ours catches it."""


def record(at: int) -> Any:
    """Return the record of a pool: one in three is dropped for a reason of its own."""
    first, second = at % 50 + 1, at % 7 + 1
    question = f"Anna has {first} apples and buys {second} more on day {at}. How many are there?"
    trace = f"Anna begins with {first}.\nShe buys {second} more.\nSo {first} + {second} = "
    good = {
        "id": at,
        "question": question,
        "reasoning_content": f"{trace}{first + second}.",
        "answer": f"The answer is {first + second}.",
        "domain": f"day {at % 3}",
    }
    dirty: list[Any] = [
        {**good, "reasoning_content": trace},
        {**good, "question": QUESTION, "reasoning_content": TRACE, "answer": ANSWER},
        {**good, "reasoning_content": f"{good['reasoning_content']}{' Wait, no.' * 80}"},
        "{broken",
        {**good, "id": 0},
    ]
    return dirty[at // 3 % len(dirty)] if at % 3 == 2 else good


def make_recipe(folder: Path, count: int = 60, **changes: Any) -> Recipe:
    write_lines(folder / "pool.jsonl", map(record, range(count)))
    content = {"inputs": [{"path": "pool.jsonl"}], "stages": STAGES, **changes}
    return parse_recipe(content, folder)


def run(recipe: Recipe, out: Path) -> Result:
    """Run a recipe as the command does."""
    result = Pipeline(recipe, out).run()
    write_manifest(recipe, result, out)
    write_report("title", sections(recipe, result), out)
    return result


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def outputs(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in OUTPUTS}


def test_every_row_is_kept_or_dropped_once(tmp_path: Path) -> None:
    result = run(make_recipe(tmp_path), tmp_path / "out")
    kept, dropped = lines(tmp_path / "out/rows.jsonl"), lines(tmp_path / "out/dropped.jsonl")

    assert len(kept) + len(dropped) == 60
    assert len({each["id"] for each in (*kept, *dropped)}) == 60
    assert {each["reason"] for each in dropped} == {
        "truncated trace", "exact duplicate", "loop", "invalid JSON", "id used twice",
    }  # fmt: skip
    for before, after in zip(result.summaries, result.summaries[1:], strict=False):
        assert before.kept == after.taken
    assert result.summaries[-1].kept == result.chosen == len(kept)
    assert [each["id"] for each in kept] == sorted((each["id"] for each in kept), key=int)
    assert kept[0]["messages"][1] == {
        "role": "assistant",
        "content": "The answer is 2.",
        "reasoning_content": "Anna begins with 1.\nShe buys 1 more.\nSo 1 + 1 = 2.",
    }


def test_the_manifest_names_everything(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, seed=7)
    run(recipe, tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())

    assert manifest["recipe"] == json.loads(json.dumps(recipe.to_json()))
    assert manifest["recipe"]["seed"] == 7
    assert manifest["files"] == {"pool.jsonl": digest_of_file(tmp_path / "pool.jsonl")}
    assert manifest["outputs"]["rows.jsonl"] == digest_of_file(tmp_path / "out/rows.jsonl")
    assert {"python", "proctor", "datasketch", "code"} <= manifest["versions"].keys()
    assert [each["step"] for each in manifest["steps"]] == [
        "read", "quality", "deduplication", "reasoning", "select",
    ]  # fmt: skip
    assert all(
        sum(each["reasons"].values()) == each["dropped"] == each["taken"] - each["kept"]
        for each in manifest["steps"]
    )
    assert str(tmp_path) not in json.dumps(manifest)


def test_the_report_shows_examples(tmp_path: Path) -> None:
    run(make_recipe(tmp_path), tmp_path / "out")

    for name in ("report.md", "report.html"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        for shown in ("truncated trace", "exact duplicate", "invalid JSON", "of 5", "day 1"):
            assert shown in text, (name, shown)


def test_another_folder_gets_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run(make_recipe(tmp_path / name), tmp_path / name / "out")

    assert outputs(tmp_path / "a/out") == outputs(tmp_path / "b/out")


@given(point=st.integers(0, 160))
@settings(max_examples=20)
def test_an_interrupted_run_continues(point: int) -> None:
    """Interrupt a run at any row of any step; the next one writes what one run would."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = make_recipe(folder, count=30)
        run(recipe, folder / "whole")
        done = 0

        def advance(step: str, total: int | None) -> None:
            nonlocal done
            done += 1
            if done > point:
                raise Interrupted

        try:
            Pipeline(recipe, folder / "out", advance).run()
        except Interrupted:
            assert not (folder / "out/rows.jsonl").exists()
        run(recipe, folder / "out")

        assert outputs(folder / "out") == outputs(folder / "whole")
        assert not list(folder.rglob("*.partial"))


SCRIPT = """
import os, signal, sys
from pathlib import Path
from proctor.curation.recipe import load_recipe
from proctor.curation.run.pipeline import Pipeline
left = int(sys.argv[3])
def advance(*_):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
Pipeline(load_recipe(Path(sys.argv[1])), Path(sys.argv[2]), advance).run()
"""


def test_a_killed_run_continues(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    (tmp_path / "recipe.toml").write_text(
        '[[inputs]]\npath = "pool.jsonl"\n[[stages]]\nstage = "quality"\nlanguages = ["en"]\n'
        '[[stages]]\nstage = "deduplication"\n[[stages]]\nstage = "reasoning"\n'
    )
    paths = (str(tmp_path / name) for name in ("recipe.toml", "out"))
    command = [sys.executable, "-c", SCRIPT, *paths, "75"]
    ended = subprocess.run(command, check=False)
    assert ended.returncode == -signal.SIGKILL

    run(recipe, tmp_path / "out")
    run(recipe, tmp_path / "whole")

    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


def test_complete_steps_are_not_run_again(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    run(recipe, tmp_path / "out")
    steps: list[str] = []

    def advance(step: str, total: int | None) -> None:
        steps.append(step)

    Pipeline(recipe, tmp_path / "out", advance).run()
    assert {*steps} == {"write"}

    # Another option of the last stage: what comes before it is kept, what is left over is removed.
    changed = make_recipe(tmp_path, stages=[*STAGES[:2], {"stage": "reasoning", "min_tokens": 1}])
    steps.clear()
    Pipeline(changed, tmp_path / "out", advance).run()
    assert {*steps} == {"reasoning", "select", "write"}
    names = [path.name.split("-")[1] for path in (tmp_path / "out/steps").glob("*.json")]
    assert sorted(names) == ["deduplication", "quality", "read", "reasoning", "select"]

    write_lines(tmp_path / "pool.jsonl", map(record, range(59)))
    steps.clear()
    Pipeline(changed, tmp_path / "out", advance).run()
    assert {*steps} == {"read", "quality", "deduplication", "reasoning", "select", "write"}


class ParityOptions(ClassifierOptions):
    """Options of a classifier by the number of a question's words."""

    def build(self, context: Context) -> "ParityOptions":
        return self

    def classify(self, questions: Iterable[str]) -> list[str]:
        return ["even" if len(question.split()) % 2 == 0 else "odd" for question in questions]


class DrawOptions(SelectorOptions):
    """Options of a selector that draws rows."""

    count: int

    def build(self, context: Context) -> "DrawOptions":
        return self

    def select(self, candidates: Sequence[Candidate], rng: random.Random) -> list[str]:
        return [each.id for each in rng.sample(list(candidates), self.count)]


@contextmanager
def parts() -> Iterator[None]:
    """Let recipes name the parts above."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "CLASSIFIERS", {"parity": ParityOptions})
        patch.setattr(recipes, "SELECTORS", {"draw": DrawOptions})
        yield


def test_rows_are_chosen_by_the_seed(tmp_path: Path) -> None:
    chosen: dict[int, list[str]] = {}
    for seed in (1, 1, 2):
        with parts():
            select = {"by": "draw", "count": 5}
            recipe = make_recipe(tmp_path, seed=seed, domains={"by": "parity"}, select=select)
        out = tmp_path / str(len(chosen)) / str(seed)
        result = run(recipe, out)
        kept = lines(out / "rows.jsonl")

        assert len(kept) == result.chosen == sum(result.domains.values()) == 5
        assert {each["domain"] for each in kept} == result.domains.keys() <= {"even", "odd"}
        assert result.summaries[-1].reasons == {pipeline.NOT_CHOSEN: result.summaries[-1].taken - 5}
        chosen.setdefault(seed, [each["id"] for each in kept])
        assert chosen[seed] == [each["id"] for each in kept]
    assert chosen[1] != chosen[2]


def test_a_selector_must_not_choose_twice(tmp_path: Path) -> None:
    class TwiceOptions(DrawOptions):
        def select(self, candidates: Sequence[Candidate], rng: random.Random) -> list[str]:
            return [candidates[0].id] * self.count

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "SELECTORS", {"twice": TwiceOptions})
        recipe = make_recipe(tmp_path, select={"by": "twice", "count": 2})

    with pytest.raises(CurationError, match="the selector 'twice' chose a row twice"):
        run(recipe, tmp_path / "out")


def test_memory_stays_small_beside_the_rows(tmp_path: Path) -> None:
    """Of long rows, a run holds far less in memory than they are long."""
    thought = " ".join(f"step{number} makes {number + 1};" for number in range(900))

    def make(count: int) -> Recipe:
        records = (
            {"id": at, "question": f"Question {at}?", "trace": f"{at} {thought}", "answer": "3"}
            for at in range(count)
        )
        write_lines(tmp_path / "pool.jsonl", records)
        stages = [{"stage": "deduplication", "threshold": 1}, {"stage": "decontamination",
                  "against": ["eval.jsonl"]}]  # fmt: skip
        return parse_recipe({"inputs": [{"path": "pool.jsonl"}], "stages": stages}, tmp_path)

    write_lines(tmp_path / "eval.jsonl", [{"question": QUESTION}])
    Pipeline(make(1), tmp_path / "first").run()  # imports what is imported once
    recipe = make(400)
    size = (tmp_path / "pool.jsonl").stat().st_size
    tracemalloc.start()
    try:
        result = Pipeline(recipe, tmp_path / "out").run()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size > 6_000_000
    assert result.chosen == 400
    assert peak < size / 5
