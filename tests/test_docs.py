"""The documentation: generated pages, links, paths, and the length of the README."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *DOCS.rglob("*.md"),
        *(ROOT / ".github").rglob("*.md"),
        ROOT / "demo" / "README.md",
        ROOT / "examples" / "README.md",
    ]
)
LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
NAMED_PATH = re.compile(
    r"`((?:bench|budget|demo|deploy|docs|evaluation|examples|requirements|router|server|tests)"
    r"/[\w./-]*)`"
)
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


def relative_path(page: Path) -> str:
    return str(page.relative_to(ROOT))


def without_code(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and Python-Markdown make them."""
    titles = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {re.sub(r" +", "-", title.strip()) for title in plain}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date(
    generator: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    outdated = generator.main(["--check"])

    assert not outdated, f"run python docs/generate.py:\n{capsys.readouterr().out}"


def test_readme_has_a_readable_length() -> None:
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()

    assert 600 <= len(words) <= 800


@pytest.mark.parametrize("page", PAGES, ids=relative_path)
def test_links_resolve(page: Path) -> None:
    for link in filter(None, sum(LINK.findall(without_code(page)), ())):
        target, _, anchor = link.partition("#")
        if "://" in link:
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        if page.is_relative_to(DOCS):
            assert path.is_relative_to(DOCS), f"{link} leads out of the site"
        if anchor:
            assert anchor in anchors(path), link


@pytest.mark.parametrize("page", PAGES, ids=relative_path)
def test_named_paths_exist(page: Path) -> None:
    for path in NAMED_PATH.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


def entries(nav: Any) -> Iterator[str]:
    """Yield the pages of a navigation, recursively."""
    match nav:
        case str():
            yield nav
        case list():
            for entry in nav:
                yield from entries(entry)
        case dict():
            yield from entries(list(nav.values()))


def test_every_page_is_in_the_navigation_once() -> None:
    class Loader(yaml.SafeLoader):  # type: ignore[misc] # PyYAML is untyped
        """A loader that reads `!!python/name` tags, which MkDocs resolves to functions, as None."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda *_: None)
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)

    assert sorted(entries(config["nav"])) == sorted(
        str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")
    )


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").glob("[0-9]*.md")), ids=relative_path)
def test_decisions_are_linked_by_their_number(page: Path) -> None:
    number = int(page.name.partition("-")[0])
    text = page.read_text(encoding="utf-8")

    assert text.startswith(f"# {number}. ")
    for other, target in re.findall(r"\[decision (\d+)\]\(([^)]+)\)", text):
        assert Path(target).name.startswith(f"{int(other):04}-")


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )

    assert built.returncode == 0, built.stderr
    assert (tmp_path / "quickstart.html").is_file()
