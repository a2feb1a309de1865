"""Recipes: what is valid, and errors that name the field."""

from pathlib import Path

import pytest

from proctor.curation.errors import CurationError
from proctor.curation.recipe import default_recipe, load_recipe
from proctor.curation.stages.quality import QualityOptions

HEAD = '[[inputs]]\npath = "pool.jsonl"\n'


def load(folder: Path, text: str) -> None:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    load_recipe(path)


def test_the_default_recipe_is_valid(tmp_path: Path) -> None:
    load(tmp_path, default_recipe())


def test_stages_keep_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    stages = ("reasoning", "quality", "reasoning")
    path.write_text(HEAD + "".join(f'[[stages]]\nstage = "{name}"\n' for name in stages))
    recipe = load_recipe(path)

    assert tuple(name for name, _ in recipe.stages) == stages
    assert recipe.stages[1][1] == QualityOptions()
    assert recipe.to_json()["stages"][1]["right_answers"] is True
    assert recipe.folder == tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = ", "is not valid TOML"),
        ("", "inputs: Field required"),
        ("inputs = []", "inputs: Tuple should have at least 1 item"),
        (f"sead = 1\n{HEAD}", "unknown field 'sead', did you mean 'seed'?"),
        (f'seed = "1"\n{HEAD}', "seed: Input should be a valid integer"),
        ('[[inputs]]\npth = "a"', "unknown field 'inputs.0.pth', did you mean 'path'?"),
        (f"{HEAD}fields = 3", "inputs.0.fields: "),
        (f"{HEAD}[stages.quality]", "stages: must be a list of tables"),
        (f"{HEAD}[[stages]]", "stages[0].stage: None is unknown"),
        (f'{HEAD}[[stages]]\nstage = "qualty"', "'qualty' is unknown, did you mean 'quality'?"),
        (
            f'{HEAD}[[stages]]\nstage = "quality"\nlangauges = ["en"]',
            "stages[0] (quality): unknown field 'langauges', did you mean 'languages'?",
        ),
        (
            f'{HEAD}[[stages]]\nstage = "quality"\nlanguages = ["english"]',
            "stages[0] (quality): languages: 'english' is unknown; known: ar, ",
        ),
        (
            f'{HEAD}[[stages]]\nstage = "deduplication"\nthreshold = 2',
            "stages[0] (deduplication): threshold: Input should be less than or equal to 1",
        ),
        (f'{HEAD}[select]\nby = "best"', "select.by: 'best' is unknown"),
        (f"{HEAD}[domains]", "domains.by: None is unknown"),
        (f'{HEAD}[output]\nform = "text"', "output.form: Input should be 'messages' or 'template'"),
        (f'{HEAD}[output]\nform = "template"', "require `model`"),
        (f"{HEAD}[output]\nblock_size = 10", "require `model`"),
        (f'thinking_start = "<a>"\n{HEAD}', "must be set together"),
    ],
)
def test_errors_name_the_field(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CurationError) as raised:
        load(tmp_path, text)
    assert message in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / "recipe.toml"))
    assert "\n" not in str(raised.value)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(CurationError, match=r"none.toml cannot be read: No such file"):
        load_recipe(tmp_path / "none.toml")
