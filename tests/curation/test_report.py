"""The report of a run."""

from collections import Counter
from pathlib import Path

from proctor.curation.output.writer import Lengths
from proctor.curation.recipe import parse_recipe
from proctor.curation.run.pipeline import NOT_CHOSEN, Result
from proctor.curation.run.report import MAX_DETAIL, MAX_DOMAINS, sections
from proctor.curation.run.steps import Summary

RECIPE = parse_recipe({"inputs": [{"path": "pool.jsonl"}]}, Path())


def make_result(summaries: list[Summary], domains: dict[str, int], rows: int = 0) -> Result:
    lengths = Lengths.of([3, 1, 2], "words")
    in_template = Lengths.of([rows], "tokens") if rows else None
    return Result(tuple(summaries), sum(domains.values()), domains, lengths, in_template, files={})


def test_reasons_come_by_their_counts_with_examples() -> None:
    examples = {"rare": [("a", "x\ny")], "often": [("b", "z" * 999)]}
    summary = Summary("quality", 10, Counter({"rare": 1, "often": 4}), examples)
    report = sections(RECIPE, make_result([summary], {"": 5}))

    assert [section.title for section in report] == [
        "Rows", "Dropped by quality", "Lengths of the chosen rows",
    ]  # fmt: skip
    reasons = report[1]
    assert reasons.table is not None
    assert reasons.table.rows == (("often", "4", "40.0%"), ("rare", "1", "10.0%"))
    assert reasons.sentences == (f"often: b: {'z' * MAX_DETAIL}…", "rare: a: x y")


def test_rows_that_are_only_not_chosen_have_no_section() -> None:
    summary = Summary("select", 10, Counter({NOT_CHOSEN: 4}), {NOT_CHOSEN: []})
    report = sections(RECIPE, make_result([summary], {"": 6}))
    assert "Dropped by select" not in [section.title for section in report]


def test_only_the_largest_domains_are_shown() -> None:
    domains = {f"domain {at}": 1000 - at for at in range(MAX_DOMAINS + 3)}
    last = sections(RECIPE, make_result([], domains))[-1]

    assert last.table is not None
    assert len(last.table.rows) == MAX_DOMAINS
    assert last.sentences == ("3 more domains are in the manifest.",)


def test_the_block_size_that_training_needs_is_told() -> None:
    lengths = sections(RECIPE, make_result([], {"": 1}, rows=12_345))[-1]
    assert "at least 12,345 tokens" in lengths.sentences[0]
