"""The table of the filters on planted dirt, on a small pool."""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from bench.curation.dirt import DIRT, Label
from bench.curation.files import read_pool, write_pool
from bench.curation.filters import NEEDS_SERVER, REASONS, Finding, mistakes, run_filters, table
from proctor.curation.rows import Row
from tests.requirements import require

COUNT, DIRTY, SEED = 600, 12, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    write_pool(folder, COUNT, DIRTY, SEED)
    return folder


def row(name: str) -> Row:
    return Row(id=name, question="2 + 3?", trace="So the answer is 5.", answer="5")


def test_the_table_counts_what_was_planted_and_found() -> None:
    rows = [row(name) for name in "abcdefgh"]
    labels = [Label("a", "loop"), Label("b", "loop"), Label("c", "refusal"), Label("d", "too easy")]
    findings = [
        Finding("a", "reasoning", "loop", ""),
        Finding("b", "quality", "truncated trace", ""),
        Finding("c", "reasoning", "repetition", ""),
        Finding("e", "reasoning", "loop", "of 3"),
    ]
    lines = list(table(rows, labels, findings))
    assert "| loop | 2 | 50.0% | 100.0% | 33.3% | 66.7% |" in lines
    assert "| truncated trace | 0 |  |  | 0.0% | 100.0% |" in lines
    assert "| refusal | 1 | 0.0% | 100.0% |  |  |" in lines
    assert "| too easy | 1 | not run | 0.0% | | |" in lines
    assert lines[-1] == "Of 4 clean rows 1 are dropped (1 reasoning: loop)."
    assert list(mistakes("clean", rows, labels, findings)) == ["e loop (of 3): '2 + 3?'"]
    assert len(list(mistakes("too easy", rows, labels, findings))) == 1


def test_every_kind_of_dirt_has_its_reasons() -> None:
    assert {*REASONS, *NEEDS_SERVER} == set(DIRT)


def test_files_hold_the_pool(folder: Path) -> None:
    rows, labels = read_pool(folder)
    assert Counter(label.dirt for label in labels) == dict.fromkeys(DIRT, DIRTY)
    assert {label.id for label in labels} < {each.id for each in rows}
    assert all(each.trace and each.metadata["steps"] for each in rows if each.source != "leaked")


def test_the_filters_find_most_dirt_and_leave_most_of_the_rest(folder: Path) -> None:
    require(importlib.util.find_spec("datasketch"), "the extra 'curate'")
    rows, labels, findings = run_filters(folder)
    dirt = {label.id: label.dirt for label in labels}
    found = {finding.id for finding in findings}
    for name in set(DIRT) - set(NEEDS_SERVER):
        planted = [each for each in dirt if dirt[each] == name]
        assert sum(each in found for each in planted) >= 0.8 * len(planted), name
    clean = [each.id for each in rows if each.id not in dirt]
    assert sum(each in found for each in clean) <= 0.05 * len(clean)
