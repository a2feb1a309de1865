"""Reports on runs that are interrupted, or that measured only some kinds of conditions."""

from collections.abc import Sequence
from itertools import combinations

import pytest

from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.options.thinking import EarlyExit, Parallel
from proctor.evaluation.report.findings import Findings
from proctor.evaluation.report.formatting import Section
from proctor.evaluation.report.plots import draw
from proctor.evaluation.report.sections import NOTHING_SHARED, sections, two_models
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.store import StoredRun
from tests.evaluation.factories import CONFIG, row

NONE, CAP = Condition(Kind.CAP, 0), Condition(Kind.CAP, 64)
OF_EVERY_KIND = (
    NONE,
    CAP,
    Condition(Kind.CAP, 64, 4),
    Condition(Kind.CAP, 64, parallel=Parallel(4, "vote")),
    Condition(Kind.CONTINUATIONS, 2),
    Condition(Kind.TIER, "auto"),
    Condition(Kind.TIER, "low", early_exit=EarlyExit("entropy")),
    Condition(Kind.EFFORT, "low"),
)
SOME = [*combinations(OF_EVERY_KIND, 1), *combinations(OF_EVERY_KIND, 2)]


def answers(condition: Condition, questions: Sequence[str]) -> list[AnswerRecord]:
    """Return answers that are right to every second question."""
    return [
        row(condition, name, sample, float(at % 2), tokens=10, end_reason="natural")
        for at, name in enumerate(questions)
        for sample in range(condition.votes)
    ]


def report(rows: Sequence[AnswerRecord]) -> dict[str, Section]:
    """Return the sections of the whole report, whose figures are drawn as well."""
    findings = Findings.of(rows)
    draw(findings)
    whole = [*sections(StoredRun(CONFIG, [*rows]), findings), two_models(findings, findings)]
    return {section.title: section for section in whole}


@pytest.mark.parametrize("conditions", SOME)
@pytest.mark.parametrize("questions", ["a", "abcdefg"])
def test_any_conditions_are_reported(conditions: Sequence[Condition], questions: str) -> None:
    rows = [each for condition in conditions for each in answers(condition, questions)]
    table = report(rows)["How the thinking ended"].table
    assert table is not None
    assert {cells[0] for cells in table.rows} == {each.name for each in conditions}


@pytest.mark.parametrize("conditions", [*combinations(OF_EVERY_KIND, 2)])
def test_conditions_without_a_shared_question_are_reported(conditions: Sequence[Condition]) -> None:
    one, other = conditions
    table = report([*answers(one, "ab"), *answers(other, "cd")])["How the thinking ended"].table
    assert table is not None
    assert {cells[0] for cells in table.rows} == {one.name, other.name}


def test_what_is_not_compared_is_said() -> None:
    rows = [*answers(NONE, "ab"), *answers(CAP, "cd")]
    section = report(rows)["Accuracy against the cap on thinking"]
    assert section.table is not None
    assert [cells[5:7] for cells in section.table.rows] == [("", ""), ("", "")]
    assert section.sentences[1:] == (NOTHING_SHARED,)
    other = two_models(Findings.of(answers(CAP, "ab")), Findings.of(answers(NONE, "cd")))
    assert other.sentences[0].startswith("Not compared: no answer is to a question of the large")


def test_two_models_are_compared_over_all_conditions() -> None:
    questions = [f"{at:02}" for at in range(40)]
    tier = Condition(Kind.TIER, "high")
    small = [row(tier, name, tokens=90) for name in questions]
    small += [row(Condition(Kind.CONTINUATIONS, 1), name, tokens=60) for name in questions]
    large = [row(Condition(Kind.EFFORT, "low"), name, score=0.0) for name in questions]

    sentence = two_models(Findings.of(small), Findings.of(large)).sentences[0]

    assert sentence.startswith("'1 continuation' is the condition with the fewest generated tokens")
    assert "the large model under 'effort low'" in sentence
