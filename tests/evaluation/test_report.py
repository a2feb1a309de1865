"""Reports on constructed answers."""

import tomllib
from collections.abc import Sequence
from html.parser import HTMLParser
from io import StringIO

import pytest
from rich.console import Console

from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.report.findings import Findings, first_unbeaten
from proctor.evaluation.report.formatting import TOO_FEW, Section
from proctor.evaluation.report.plots import draw, to_svg
from proctor.evaluation.report.recommend import recommend, to_toml
from proctor.evaluation.report.renderers import to_html, to_markdown, to_terminal
from proctor.evaluation.report.sections import sections, two_models
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.store import StoredRun
from proctor.server.config.settings import Settings
from tests.evaluation.factories import CONFIG, row, run

QUESTIONS = 200


def answers(
    condition: Condition, right: int, samples: int = 1, tokens: int = 10
) -> list[AnswerRecord]:
    """Return answers to `QUESTIONS` questions; those to the first `right` questions are right."""
    return [
        row(
            condition,
            f"{question:03}",
            sample,
            score=float(question < right),
            normalized_answer="1" if question < right else "2",
            tokens=tokens,
            end_reason="max" if tokens else "disabled",
        )
        for question in range(QUESTIONS)
        for sample in range(samples)
    ]


def cap(maximum: int, right: int, **options: int) -> list[AnswerRecord]:
    return answers(
        Condition(Kind.CAP, maximum),
        right,
        tokens=max(maximum, 0) or 300 * (maximum < 0),
        **options,
    )


CURVE = [*cap(0, 10), *cap(64, 100), *cap(128, 150), *cap(256, 180), *cap(512, 181), *cap(-1, 175)]


def report_sections(rows: Sequence[AnswerRecord]) -> dict[str, Section]:
    findings = Findings.of(rows)
    return {section.title: section for section in sections(StoredRun(CONFIG, [*rows]), findings)}


def test_conditions_are_sorted_by_budget() -> None:
    conditions = [
        *(Condition(Kind.TIER, "high"), Condition(Kind.CAP, -1), Condition(Kind.CAP, 64, 4)),
        *(Condition(Kind.CAP, 64), Condition(Kind.TIER, "auto"), Condition(Kind.CAP, 8)),
    ]
    findings = Findings.of([row(condition) for condition in conditions])

    assert [each.condition.name for each in findings.results] == [
        *("at most 8", "at most 64", "no maximum", "4 of at most 16"),
        *("tier high", "tier auto"),
    ]
    assert findings.baseline.condition.name == "at most 8"
    assert findings.baseline_of(Kind.TIER).condition.value == "high"
    with pytest.raises(ValueError, match="no answers"):
        Findings.of([])


def test_section_on_caps() -> None:
    section = report_sections(CURVE)["Accuracy against the cap on thinking"]

    assert section.table is not None
    by_condition = {cells[0]: cells for cells in section.table.rows}
    assert by_condition["at most 0"][5:7] == ("", "")
    # 90 / 202, give or take 1.96 times the root of (92 / 202 - (90 / 202)²) / 202: drawn with a
    # gain of +1 and one of -1 more.
    assert by_condition["at most 64"][5:7] == ("+45.0 (+37.6, +51.5)", "pays")
    assert by_condition["at most 64"][7] == "130"  # 65 tokens at 50%
    words = " ".join(section.sentences)
    assert "the best accuracy: 90.5%" in words
    # Doublings: 64 50%, 128 75%, 256 90%, 300 87.5%, 512 90.5%; the mean slope of the ten pairs.
    assert "Scaling: +10.2 percentage points per doubling" in words
    assert "It flattens at 'at most 256'" in words
    assert "No condition after 'at most 512' has a higher accuracy." in words
    assert "First condition significantly better than 'at most 0': 'at most 64'." in words


def test_section_on_how_thinking_ended() -> None:
    rows = [
        *(row(Condition(Kind.CAP, 8), str(at), end_reason="natural", score=1) for at in range(3)),
        row(Condition(Kind.CAP, 8), "3", end_reason="max", forced_tokens=4, score=0),
        *(row(Condition(Kind.CAP, 64), str(at), end_reason="loop", score=0) for at in range(2)),
        *(
            row(
                Condition(Kind.CAP, 64),
                str(at),
                normalized_answer=None,
                continuations=2,
                end_reason="disabled",
            )
            for at in (2, 3)
        ),
    ]
    table = report_sections(rows)["How the thinking ended"].table

    assert table is not None
    assert table.rows == (
        ("at most 8", "75.0%", "25.0%", "0.0%", "25.0%", "0.00", "1.0", "0.0%", ""),
        ("at most 64", "0.0%", "0.0%", "50.0%", "50.0%", "1.00", "0.0", "50.0%", "50.0%"),
    )


def test_section_on_several_answers() -> None:
    section = report_sections(cap(8, 100, samples=5))["Several answers per question"]

    assert section.table is not None
    assert [cells[1:] for cells in section.table.rows] == [
        (str(k), "50.0% (43.1, 56.9)", "50.0% (43.1, 56.9)", "5") for k in (2, 4, 5)
    ]
    assert "temperature 0.6, top_p 0.95" in section.sentences[0]


def test_section_on_one_chain_or_several() -> None:
    shared = answers(Condition(Kind.CAP, 64, 4), right=20, samples=4, tokens=16)
    rows = [*cap(64, 100), *shared, *cap(-1, 150, samples=2)]
    section = report_sections(rows)["One chain or several, at equal thinking tokens"]

    assert section.table is not None
    rows_by_strategy = {cells[1]: cells for cells in section.table.rows}
    assert [*rows_by_strategy] == [
        "one chain",
        "majority@4",
        "best-of-4",
        "pass@4",
        "rejection above 64",
    ]
    assert rows_by_strategy["one chain"][3:5] == ("64", "")
    assert rows_by_strategy["majority@4"][2:4] == ("10.0% (6.4, 14.9)", "64")
    assert rows_by_strategy["majority@4"][4].startswith("-40.0")
    assert rows_by_strategy["majority@4"][5] == "680"  # 4 times 17 tokens at 10%
    assert rows_by_strategy["rejection above 64"][2:4] == ("0.0% (0.0, 1.5)", "600")


def test_the_first_cap_that_no_later_one_beats() -> None:
    many = {str(at): at for at in range(QUESTIONS)}
    rising = [
        run(str(right), {name: [float(at < right)] for name, at in many.items()})
        for right in (20, 100, 102, 101)
    ]
    assert first_unbeaten(rising) is rising[1]
    assert first_unbeaten(rising[:1]) is rising[0]


def test_recommended_tiers() -> None:
    snippet = report_sections(CURVE)["Recommended tiers"].snippet

    tiers = tomllib.loads(snippet)["tiers"]
    assert [(tier["name"], tier["max_tokens"]) for tier in tiers] == [
        *(("none", 0), ("low", 64), ("medium", 256), ("high", 256), ("max", 512))
    ]
    assert [tier.name for tier in Settings(tiers=tiers).tiers] == [tier["name"] for tier in tiers]


def test_no_tiers_are_recommended_where_thinking_does_not_pay() -> None:
    section = report_sections([*cap(0, 100), *cap(64, 101)])["Recommended tiers"]
    assert (section.snippet, section.sentences) == (
        "",
        ("No cap is significantly better than no thinking.",),
    )
    with pytest.raises(ValueError, match="without thinking"):
        recommend(Findings.of(cap(64, 100)).of_kind(Kind.CAP))
    assert to_toml([]) == ""


def test_a_small_model_that_thinks_against_a_large_one_that_does_not() -> None:
    large = Findings.of(cap(0, 60))

    text = " ".join(two_models(Findings.of(CURVE), large).sentences)
    assert "'at most 64' is the condition with the fewest generated tokens in which" in text
    assert "the small model is significantly more often right" in text
    assert "30.0% (24.2, 36.6) right: by +20.0" in text
    # 65 tokens at 50% against 1 token at 30%.
    assert "per token is 39.00 (" in text
    none = two_models(Findings.of(cap(64, 61)), large)
    assert "No condition makes the small model significantly better" in none.sentences[0]


class PageParser(HTMLParser):
    """Collects the texts of a page, and its links to other resources."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.links: list[str | None] = []

    def handle_starttag(self, _: str, attributes: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_report_in_every_format() -> None:
    report = [*report_sections(CURVE).values()]
    title = "Is <b> | paid?"

    markdown = to_markdown(title, report, {"cap": "cap.svg"})
    assert markdown.startswith(f"# {title}\n\n## Setup\n")
    assert "| condition | answers | right |" in markdown
    assert "\n![Accuracy against the cap on thinking](cap.svg)\n" in markdown
    assert "```toml\n[[tiers]]" in markdown

    page = PageParser()
    page.feed(to_html(title, report, {"cap": "<svg><text>drawn</text></svg>"}))
    assert title in page.texts
    assert "drawn" in page.texts
    assert "+45.0 (+37.6, +51.5)" in page.texts
    assert not page.links

    written = StringIO()
    to_terminal(title, report, Console(file=written, width=200))
    assert title in written.getvalue()
    assert "+45.0 (+37.6, +51.5)" in written.getvalue()


def test_one_question_gives_no_verdict() -> None:
    conditions = [
        *(Condition(Kind.CAP, maximum) for maximum in (0, -1)),
        *(Condition(Kind.CONTINUATIONS, number) for number in (0, 2)),
    ]
    rows = [
        row(each, score=float(at > 0), tokens=50 * at, end_reason="natural")
        for at, each in enumerate(conditions)
    ]
    whole = report_sections(rows)

    table = whole["Accuracy against continuations"].table
    assert table is not None
    assert {cells[5:7] for cells in table.rows} == {("+100.0 (-100.0, +100.0)", "not enough data")}
    told = " ".join(sentence for each in whole.values() for sentence in each.sentences)
    assert told.count(TOO_FEW) == 4  # caps, continuations, the coin, the tiers
    for conclusion in ("It flattens", "is above", "significantly better than", "Scaling", "Slope"):
        assert conclusion not in told
    assert not whole["Recommended tiers"].snippet
    found = Findings.of(rows)
    assert two_models(found, found).sentences == (TOO_FEW,)


def test_names_are_escaped_in_svg() -> None:
    figures = draw(Findings.of([row(Condition(Kind.TIER, "</text><script>"), "q")]))
    drawn = to_svg(figures["tier"], "tier")
    assert "<script>" not in drawn
    assert "&lt;script&gt;" in drawn


def test_pipes_are_escaped_in_markdown_tables() -> None:
    rows = cap(64, 100, samples=1)
    records = [row(Condition(Kind.TIER, "a|b"), each.question) for each in rows]
    markdown = to_markdown("t", [*report_sections(records).values()], {})
    assert r"| tier a\|b |" in markdown
