"""The recipes of the page on difficulty and diversity are recipes."""

import re
import tomllib
from pathlib import Path
from typing import Any

from proctor.curation.difficulty.options import DifficultyOptions
from proctor.curation.diversity.keywords import KeywordsOptions
from proctor.curation.diversity.s1 import S1NotebookOptions
from proctor.curation.recipe import Recipe, parse_recipe

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "curation.md"


def test_the_recipes_of_the_page_are_parsed() -> None:
    tables = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    content: dict[str, Any] = tomllib.loads('[[inputs]]\npath = "x.jsonl"\n' + "\n".join(tables))
    recipe: Recipe = parse_recipe(content, Path())

    ((_, difficulty),) = recipe.stages
    assert isinstance(difficulty, DifficultyOptions)
    assert [judge.only_without for judge in difficulty.judges] == [False, True]
    assert recipe.classifier is not None
    assert isinstance(recipe.classifier[1], KeywordsOptions)
    assert recipe.selector is not None
    assert isinstance(recipe.selector[1], S1NotebookOptions)
    assert recipe.selector[1].preselect[0].longer_than == 2000
