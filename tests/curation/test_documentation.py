"""What the documentation says of recipes and reasons is what the code does."""

import re
from pathlib import Path

import pytest

from proctor.curation.recipe import load_recipe

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "teach-your-model-to-think.md"
FILTERS = ROOT / "docs" / "concepts" / "filters.md"
REASON = re.compile(r"(?:Dropped|Unreadable)\(\s*\"([^\"]+)\"")
STAGES = ("quality", "deduplication", "decontamination", "reasoning")


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "curation").glob("*.toml")))
def test_examples_are_valid(path: Path) -> None:
    load_recipe(path)


def test_the_guides_recipe_is_valid(tmp_path: Path) -> None:
    snippets = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert snippets
    for snippet in snippets:
        (tmp_path / "recipe.toml").write_text(snippet, encoding="utf-8")
        load_recipe(tmp_path / "recipe.toml")


def test_every_reason_is_documented() -> None:
    page = FILTERS.read_text(encoding="utf-8")
    sources = [*(ROOT / "curation" / "readers").glob("*.py")]
    sources += [ROOT / "curation" / "stages" / f"{name}.py" for name in STAGES]
    reasons = {
        reason for path in sources for reason in REASON.findall(path.read_text(encoding="utf-8"))
    }
    assert len(reasons) > 25
    assert {reason for reason in reasons if f"`{reason}`" not in page} == set()
