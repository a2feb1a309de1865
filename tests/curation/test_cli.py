"""The command `proctor curate`."""

import argparse
import sys
from pathlib import Path

import pytest

from proctor.curation import cli
from tests.curation.factories import ANSWER, QUESTION, TRACE, write_lines

RECIPE = '[[inputs]]\npath = "pool.jsonl"\n[[stages]]\nstage = "quality"\n'
OUTPUTS = {"rows.jsonl", "dropped.jsonl", "manifest.json", "report.md", "report.html", "steps"}


def execute(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.execute(parser.parse_args([str(each) for each in arguments]))


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"question": QUESTION, "trace": TRACE, "answer": ANSWER}
    write_lines(tmp_path / "pool.jsonl", [row, {**row, "answer": "7"}])
    (tmp_path / "recipe.toml").write_text(RECIPE)

    assert execute("run", tmp_path / "recipe.toml", "--out", tmp_path / "out") == 0

    printed = capsys.readouterr()
    assert "1 rows by recipe.toml" in printed.out
    assert "answer does not follow" in printed.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == OUTPUTS


def test_the_recipe_to_start_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute("recipe") == 0
    assert 'stage = "quality"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (RECIPE, "pool.jsonl does not exist"),
        (RECIPE.replace("quality", "qualty"), "did you mean 'quality'?"),
        (RECIPE.replace("pool.jsonl", "recipe.toml"), "does not end in .jsonl"),
        (f"model = './none'\n{RECIPE}", "there is no folder"),
    ],
)
def test_errors_are_one_line(
    recipe: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.toml").write_text(recipe)

    assert execute("run", tmp_path / "recipe.toml", "--out", tmp_path / "out") == 1

    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("proctor: ")
    assert message in last


def test_an_interruption_says_how_to_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load_recipe", interrupted)

    assert execute("run", tmp_path / "recipe.toml") == 130
    assert "run again to continue" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "stage"), [("ftfy.badness", "quality"), ("datasketch", "deduplication")]
)
def test_a_missing_dependency_names_the_extra(
    module: str,
    stage: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    row = {"question": f"{QUESTION} \u2013 at the caf\u00e9", "trace": TRACE, "answer": ANSWER}
    write_lines(tmp_path / "pool.jsonl", [row])
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("quality", stage))

    assert execute("run", tmp_path / "recipe.toml", "--out", tmp_path / "out") == 1
    assert "the extra 'curate'" in capsys.readouterr().err


def test_parquet_without_its_library_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "pool.parquet").touch()
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("pool.jsonl", "pool.parquet"))

    assert execute("run", tmp_path / "recipe.toml", "--out", tmp_path / "out") == 1
    assert "require the extra 'curate'" in capsys.readouterr().err
