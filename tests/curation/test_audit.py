"""The audit of a file: what it finds, and what it advises."""

import argparse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.curation.audit import cli
from proctor.curation.audit.measure import OWN_FIELD, TIERS, Audit, audit
from proctor.curation.audit.report import sections
from proctor.curation.readers.files import Unreadable
from proctor.curation.text.ngrams import EvaluationIndex
from proctor.curation.tokens import Words
from proctor.server.config.budgets import DEFAULT_TIERS
from tests.curation.factories import ANSWER, QUESTION, TRACE, write_lines

THINK = ("<think>", "</think>")
IN_FIELD = {"question": QUESTION, "trace": TRACE, "answer": ANSWER}
IN_MARKERS = {"prompt": QUESTION, "completion": f"<think>\n{TRACE}\n</think>\n{ANSWER}"}
IN_OTHERS = {"prompt": QUESTION, "completion": f"[THINK]{TRACE}[/THINK]{ANSWER}"}
NO_TRACE = {"question": QUESTION, "answer": ANSWER}


def measure(*records: Any, against: str = "") -> Audit:
    index = EvaluationIndex([("eval row 1", against)]) if against else None
    return audit(records, Words(), index)


def text_of(measured: Audit, markers: tuple[str, str] | None = THINK, **given: bool) -> str:
    options = {"model": True, "against": True, **given}
    report = sections(measured, markers, model=options["model"], against=options["against"])
    return "\n".join(sentence for section in report for sentence in section.sentences)


def test_the_tiers_are_the_servers() -> None:
    assert dict(TIERS) == {tier.name: tier.max_tokens for tier in DEFAULT_TIERS if tier.max_tokens}


def test_counts() -> None:
    loop = {**IN_FIELD, "trace": TRACE + " Wait, no." * 60}
    cut = {"prompt": "Why?", "completion": "<think>\nBecause it"}
    measured = measure(
        IN_FIELD, IN_MARKERS, IN_OTHERS, NO_TRACE, loop, cut, Unreadable("invalid JSON"),
        against=QUESTION,
    )  # fmt: skip

    assert (measured.rows, measured.with_trace) == (6, 5)
    assert measured.unreadable == {"invalid JSON": 1}
    assert measured.markers == {OWN_FIELD: 2, THINK: 2, ("[THINK]", "[/THINK]"): 1}
    assert (measured.loops.count, measured.unanswered.count) == (1, 1)
    assert measured.contaminated.count == 5
    assert measured.loops.examples[0].startswith("row 5: after ")
    assert measured.unanswered.examples[0].startswith("row 6: ")


@given(st.lists(st.integers(1, 40_000), max_size=30))
def test_every_trace_is_in_one_tier(lengths: list[int]) -> None:
    measured = Audit("tokens")
    measured.lengths.extend(lengths)
    counts = measured.by_tier()

    assert sum(counts.values()) == len(lengths)
    assert counts["longer"] == sum(length > 32768 for length in lengths)
    assert counts["low"] == sum(length <= 512 for length in lengths)


@pytest.mark.parametrize(
    ("records", "advice"),
    [
        ([NO_TRACE], "cannot use the tokens"),
        ([NO_TRACE, IN_FIELD], "learns from them to answer at once"),
        ([IN_FIELD], "Nearly all rows show how to think"),
        ([IN_FIELD], 'form = "template" writes them'),
        ([IN_MARKERS], "All traces are in the markers that the server enforces"),
        ([IN_OTHERS, IN_MARKERS], "1 traces are not in <think> … </think>"),
        ([Unreadable("invalid JSON")], "describe it by `fields`"),
        ([IN_FIELD], "All traces fit the tier 'low'"),
    ],
)
def test_advice(records: list[Any], advice: str) -> None:
    assert advice in text_of(measure(*records))


def test_advice_without_a_model_or_an_evaluation() -> None:
    measured = measure(IN_MARKERS)
    assert "Pass --model" in text_of(measured, None, model=False)
    assert "--thinking-start" in text_of(measured, None)
    assert "Not checked" in text_of(measured, against=False)
    assert "scores would measure memory" in text_of(measure(IN_FIELD, against=QUESTION))


def execute(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.execute(parser.parse_args(arguments))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write_lines(tmp_path / "rows.jsonl", [IN_MARKERS, NO_TRACE, "{broken"]))
    evaluation = str(write_lines(tmp_path / "eval.jsonl", [{"question": QUESTION}]))
    folder = tmp_path / "report"

    markers = ("--thinking-start", "<think>", "--thinking-end", "</think>")
    assert execute(path, *markers, "--against", evaluation, "--folder", str(folder)) == 0

    printed = capsys.readouterr().out
    assert "Audit of rows.jsonl" in printed
    assert "scores would measure memory" in printed
    assert "All traces are in the markers" in printed
    assert (folder / "report.md").read_text().startswith("# Audit of rows.jsonl")
    assert "<h1>" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.jsonl",), "none.jsonl does not exist"),
        (("none.jsonl", "--thinking-start", "<a>"), "must be given together"),
    ],
)
def test_errors_are_one_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(*arguments) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("proctor: ")
    assert message in printed
    assert printed.count("\n") == 1
