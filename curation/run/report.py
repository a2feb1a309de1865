"""The report of a run: what was dropped and why, with examples, and what is left."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from proctor.curation.output.writer import Lengths
from proctor.curation.recipe import Recipe
from proctor.curation.run.pipeline import NOT_CHOSEN, Result
from proctor.curation.run.steps import Summary
from proctor.curation.storage import complete_file
from proctor.evaluation.report.formatting import Section, Table
from proctor.evaluation.report.renderers import to_html, to_markdown, to_terminal

MAX_DOMAINS = 40
MAX_DETAIL = 160
WIDTH = 132
"""Columns of a report that is not printed to a terminal."""


def sections(recipe: Recipe, result: Result) -> list[Section]:
    """Return the sections of the report."""
    report = [_overview(result)]
    report += [_reasons(summary) for summary in result.summaries if _has_reasons(summary)]
    report.append(_lengths(recipe, result))
    if len(result.domains) > 1:
        report.append(_domains(result))
    return report


def print_report(title: str, report: Sequence[Section]) -> None:
    """Print a report to the terminal."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    to_terminal(title, report, console)


def write_report(title: str, report: Sequence[Section], folder: Path) -> None:
    """Write a report as `report.md` and `report.html`."""
    for name, text in (
        ("report.md", to_markdown(title, report, {})),
        ("report.html", to_html(title, report, {})),
    ):
        with complete_file(folder / name) as file:
            file.write(text.encode())


def _overview(result: Result) -> Section:
    rows = tuple(
        (each.name, f"{each.taken:,}", f"{each.dropped:,}", f"{each.kept:,}")
        for each in result.summaries
    )
    return Section("Rows", Table(("step", "taken", "dropped", "kept"), rows))


def _has_reasons(summary: Summary) -> bool:
    return bool({*summary.reasons} - {NOT_CHOSEN})


def _reasons(summary: Summary) -> Section:
    counts = summary.counts()["reasons"]
    table = tuple(
        (reason, f"{count:,}", f"{count / summary.taken:.1%}") for reason, count in counts.items()
    )
    examples = tuple(
        f"{reason}: {row_id}: {_line(detail)}"
        for reason in counts
        for row_id, detail in summary.examples[reason]
    )
    title = f"Dropped by {summary.name}"
    return Section(title, Table(("reason", "rows", "share"), table), examples)


def _line(text: str) -> str:
    """Return a text on one line, cut if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_DETAIL else f"{line[:MAX_DETAIL]}…"


def _lengths(recipe: Recipe, result: Result) -> Section:
    rows = [("traces", result.traces)]
    if result.rows is not None:
        rows.append(("prompt and completion", result.rows))
    table = tuple((name, *_cells(lengths)) for name, lengths in rows)
    columns = ("", "shortest", "median", "longest", "total", "unit")
    sentences = []
    if result.rows is not None:
        sentences.append(
            f"Train with a block size of at least {result.rows.longest:,} tokens: shorter blocks "
            "cut traces, which makes models think longer and be right less often."
        )
    elif recipe.settings.model is None:
        sentences.append("Name a `model` in the recipe to count its tokens in place of words.")
    return Section("Lengths of the chosen rows", Table(columns, table), tuple(sentences))


def _cells(lengths: Lengths) -> tuple[str, ...]:
    numbers = (lengths.shortest, lengths.median, lengths.longest, lengths.total)
    return (*(f"{number:,}" for number in numbers), lengths.unit)


def _domains(result: Result) -> Section:
    shown = list(result.domains.items())[:MAX_DOMAINS]
    rows = tuple(
        (name or "(none)", f"{count:,}", f"{count / result.chosen:.1%}") for name, count in shown
    )
    left = len(result.domains) - len(shown)
    more = (f"{left} more domains are in the manifest.",) if left else ()
    return Section("Domains of the chosen rows", Table(("domain", "rows", "share"), rows), more)
