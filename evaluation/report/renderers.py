"""Renders a report as Markdown, as an HTML page and on a terminal."""

from collections.abc import Mapping, Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from proctor.evaluation.report.formatting import Section, Table


def to_markdown(title: str, sections: Sequence[Section], pictures: Mapping[str, str]) -> str:
    """Render a report as Markdown.

    Args:
        title: the heading.
        sections: the sections.
        pictures: the files of figures by name; figures without a file are omitted.
    """
    lines = [f"# {title}", ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        if section.table is not None:
            lines += [*_markdown_table(section.table), ""]
        if section.figure in pictures:
            lines += [f"![{section.title}]({pictures[section.figure]})", ""]
        for sentence in section.sentences:
            lines += [f"- {sentence}"]
        if section.sentences:
            lines.append("")
        if section.snippet:
            lines += ["```toml", section.snippet.rstrip(), "```", ""]
    return "\n".join(lines)


def to_html(title: str, sections: Sequence[Section], drawings: Mapping[str, str]) -> str:
    """Render a report as a self-contained HTML page.

    Args:
        title: the heading.
        sections: the sections.
        drawings: an `<svg>` element for each figure, by name.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        files("proctor.evaluation.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    )
    safe = {name: Markup(drawing) for name, drawing in drawings.items()}  # noqa: S704 - from plots
    return template.render(title=title, sections=sections, drawings=safe)


def to_terminal(title: str, sections: Sequence[Section], console: Console) -> None:
    """Print a report."""
    console.rule(Text(title))
    for section in sections:
        console.print(Text(f"\n{section.title}", style="bold"))
        if section.table is not None:
            console.print(_rich_table(section.table))
        for sentence in section.sentences:
            console.print(Text(f"• {sentence}"))
        if section.snippet:
            console.print(Text(section.snippet))


def _markdown_table(table: Table) -> list[str]:
    rules = ["---", *["--:"] * (len(table.columns) - 1)]
    rows = [table.columns, rules, *table.rows]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]


def _rich_table(table: Table) -> RichTable:
    rendered = RichTable(padding=(0, 1, 0, 0), box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(table.columns):
        rendered.add_column(
            column,
            justify="right" if index else "left",
            overflow="fold",
            no_wrap=not index,
        )
    for row in table.rows:
        rendered.add_row(*(Text(cell) for cell in row))
    return rendered
