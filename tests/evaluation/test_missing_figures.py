"""Reports on servers that do not report all that Proctor does: what is missing is never 0."""

from collections.abc import Sequence

import pytest

from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.report.findings import Findings
from proctor.evaluation.report.formatting import Section
from proctor.evaluation.report.plots import draw
from proctor.evaluation.report.sections import sections, two_models
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.store import StoredRun
from tests.evaluation.factories import CONFIG, row

LOW, HIGH = Condition(Kind.EFFORT, "low"), Condition(Kind.EFFORT, "high")
CAPS = [Condition(Kind.CAP, maximum) for maximum in (0, 64, -1)]
QUESTIONS = [f"{at:02}" for at in range(20)]


def uncounted(condition: Condition, samples: int = 1) -> list[AnswerRecord]:
    """Return answers of a server that counts no thinking and gives no reason for its end."""
    rows = [
        row(condition, name, sample, score=float(at % 2), tokens=30)
        for at, name in enumerate(QUESTIONS)
        for sample in range(samples)
    ]
    for each in rows:
        del each.response["usage"]["completion_tokens_details"]
    return rows


def report(rows: Sequence[AnswerRecord]) -> dict[str, Section]:
    findings = Findings.of(rows)
    return {each.title: each for each in sections(StoredRun(CONFIG, [*rows]), findings)}


def cells(section: Section) -> list[dict[str, str]]:
    assert section.table is not None
    return [dict(zip(section.table.columns, each, strict=True)) for each in section.table.rows]


def test_thinking_without_a_count_is_missing_in_every_section() -> None:
    rows = [*uncounted(LOW), *uncounted(HIGH)]
    whole = report(rows)

    for line in cells(whole["Efforts"]):
        assert (line["thinking"], line["within"]) == ("-", "-")
        assert line["right"].startswith("50.0%")
        assert line["tokens / right"] == "62"
    assert {line["thinking, ratio"] for line in cells(whole["Paired comparisons"])} == {"-"}
    assert "does not count the thinking tokens of 40 answers" in whole["Setup"].sentences[-1]
    assert not {"Against a coin and a perfect router", "Area under the curve"} & {*whole}
    assert draw(Findings.of(rows)) == {}


def test_the_end_of_thinking_without_a_reason_is_missing() -> None:
    (line,) = cells(report(uncounted(LOW))["How the thinking ended"])
    reported = {name: cell for name, cell in line.items() if cell == "-"}
    assert [*reported] == ["natural", "cap", "loop", "forced end", "continued", "forced tokens"]
    assert line["no answer"] == "0.0%"


def test_one_answer_without_a_count_hides_the_mean_of_its_condition_only() -> None:
    counted = [
        row(condition, name, tokens=30, end_reason="natural")
        for condition in (HIGH, LOW)
        for name in QUESTIONS
    ]
    high, low = cells(report([*counted[:-1], uncounted(LOW)[-1]])["Efforts"])
    assert (high["thinking"], low["thinking"]) == ("30", "-")


@pytest.mark.parametrize("samples", [1, 2])
def test_curves_of_uncounted_thinking_have_no_slope(samples: int) -> None:
    voted = uncounted(Condition(Kind.CAP, 64, 4), 4)
    rows = [*voted, *(each for cap in CAPS for each in uncounted(cap, samples))]
    whole = report(rows)
    text = " ".join(whole["Accuracy against the cap on thinking"].sentences)
    assert "Slope" not in text
    assert "Scaling" not in text
    strategies = {
        line["strategy"] for line in cells(whole["One chain or several, at equal thinking tokens"])
    }
    assert "rejection above 64" not in strategies
    assert {*draw(Findings.of(rows))} == {"parallel"}
    assert "nan" not in str([*whole.values(), two_models(Findings.of(rows), Findings.of(rows))])
