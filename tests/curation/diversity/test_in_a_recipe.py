"""Classifiers and samplers as a recipe names them."""

import json
from importlib.metadata import EntryPoint
from pathlib import Path
from random import Random

import pytest

from proctor.curation.diversity.keywords import KeywordsOptions
from proctor.curation.errors import CurationError
from proctor.curation.plugins import Plugins
from proctor.curation.recipe import load_recipe
from proctor.curation.registry import CLASSIFIERS, SELECTORS
from proctor.curation.run.pipeline import Pipeline
from proctor.curation.selection import ClassifierOptions

GROUP = "proctor.domains"


def write_recipe(folder: Path, select: str, seed: int = 0, shuffled: bool = False) -> Path:
    rows = [
        {
            "id": f"r{number}",
            "question": f"{('A triangle', 'A court', 'A patient')[number % 3]} {number}?",
            "thinking": "so " * (number % 17 + 1),
            "answer": str(number),
            "solution": str(number),
            "source": ("aime", "gpqa", "forum", "forum")[number % 4],
        }
        for number in range(120)
    ]
    if shuffled:
        Random(1).shuffle(rows)
    folder.mkdir(exist_ok=True)
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = folder / "recipe.toml"
    file.write_text(
        f'seed = {seed}\n[[inputs]]\npath = "pool.jsonl"\n[domains]\nby = "keywords"\n'
        f"[select]\nsize = 40\n{select}"
    )
    return file


def chosen_rows(file: Path) -> bytes:
    Pipeline(load_recipe(file), file.parent / "out").run()
    return (file.parent / "out" / "rows.jsonl").read_bytes()


PRESELECT = '[[select.preselect]]\nsource = "aime"\nlonger_than = 12\n'
BENCHMARKS = (
    '[[select.benchmarks]]\nsource = "aime"\n[[select.benchmarks]]\nsource = "gpqa"\nweight = 0.5\n'
)


@pytest.mark.parametrize(
    "select",
    [
        'by = "random"\n',
        'by = "longest"\n',
        'by = "uniform"\n',
        f'by = "s1-paper"\n{PRESELECT}',
        f'by = "s1-notebook"\nuniform_until = 30\n{PRESELECT}{BENCHMARKS}',
        'by = "s1-notebook"\nmix = { geometry = 3, law = 1 }\n',
    ],
)
def test_the_same_recipe_chooses_the_same_rows_byte_for_byte(select: str, tmp_path: Path) -> None:
    rows = chosen_rows(write_recipe(tmp_path / "a", select))

    assert rows == chosen_rows(write_recipe(tmp_path / "b", select, shuffled=True))
    chosen = [json.loads(line) for line in rows.splitlines()]
    assert len({row["id"] for row in chosen}) == len(chosen) == 40
    assert {row["domain"] for row in chosen} <= {"geometry", "law", "medicine"}
    if "longest" not in select:
        assert rows != chosen_rows(write_recipe(tmp_path / "c", select, seed=1))


def test_an_impossible_choice_is_an_error_of_the_recipe(tmp_path: Path) -> None:
    file = write_recipe(tmp_path, 'by = "random"\n')
    file.write_text(file.read_text().replace("size = 40", "size = 400"))
    with pytest.raises(CurationError, match="size is 400, but only 120 rows"):
        chosen_rows(file)


def test_other_packages_can_install_classifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    here = "tests.curation.diversity.test_in_a_recipe"
    points = [
        EntryPoint("mine", "proctor.curation.diversity.keywords:KeywordsOptions", GROUP),
        EntryPoint("keywords", f"{here}:GROUP", GROUP),
        EntryPoint("wrong", f"{here}:GROUP", GROUP),
        EntryPoint("gone", "no.such.module:Options", GROUP),
    ]
    monkeypatch.setattr("proctor.curation.plugins.entry_points", lambda group: points)
    known = Plugins(GROUP, ClassifierOptions, {"keywords": KeywordsOptions})

    assert [*known] == ["keywords", "mine", "wrong", "gone"]
    assert len(known) == 4
    assert "mine" in known
    assert "none" not in known
    assert known["mine"] is known["keywords"] is KeywordsOptions
    with pytest.raises(CurationError, match=r"'wrong' .* is not a subclass"):
        known["wrong"]
    with pytest.raises(CurationError, match=r"'gone' .* cannot be imported: No module"):
        known["gone"]
    with pytest.raises(KeyError):
        known["none"]


def test_the_parts_of_the_issue_are_there() -> None:
    assert {"keywords", "clusters", "endpoint"} <= set(CLASSIFIERS)
    assert {*SELECTORS} == {"s1-paper", "s1-notebook", "random", "longest", "uniform"}
