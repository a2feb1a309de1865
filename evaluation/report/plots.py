"""Plots of a run. Requires the extra `eval`."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.report.findings import ConditionResults, Findings, accuracy
from proctor.evaluation.report.frontier import CURVE_NAMES, Frontier, Points, answered
from proctor.evaluation.report.sections import TITLES
from proctor.evaluation.statistics.delta import Interval
from proctor.evaluation.statistics.samples import Run
from proctor.evaluation.statistics.strategies import any_right, best_of_n, majority

SIZE = (6.4, 4.8)
DPI = 160
LOW_PERCENT = 12
"""Accuracy below which a point's label is placed above it."""

LEGEND_WIDTH = 44
"""Characters of a line in a legend of two columns."""

WITHOUT_DATE = {"svg": {"Date": None}, "png": {}}
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
    "svg.fonttype": "none",  # text stays searchable
}
MARKERS = "osD^vP*X"
LINES = ("--", ":", "-.")
"""Styles of the lines of a coin and of perfect routers."""


def draw(findings: Findings) -> dict[str, Figure]:
    """Plot each kind of condition, and all strategies; return the figures by name."""
    lines = _reference_lines(Frontier.of(findings))
    with mpl.rc_context(STYLE):
        figures = {
            kind.value: _accuracy(TITLES[kind], placed)
            for kind in Kind
            if (placed := [each for each in findings.of_kind(kind) if each.run.has_token_counts])
        }
        if findings.voting or findings.parallel:
            figures["parallel"] = _parallel(findings)
        if lines:
            figures["frontier"] = _frontier(findings)
        for figure in figures.values():
            _add_lines(figure.axes[0], lines)
    return figures


def to_svg(figure: Figure, name: str) -> str:
    """Return a figure as an `<svg>` element; its ids are unique to the name."""
    file = io.StringIO()
    with _style(name):
        figure.savefig(file, format="svg", metadata=WITHOUT_DATE["svg"])
    text = file.getvalue()
    return text[text.index("<svg") :]


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as PNG and as SVG."""
    with _style(name):
        for extension, metadata in WITHOUT_DATE.items():
            figure.savefig(folder / f"{name}.{extension}", dpi=DPI, metadata=metadata)


def _style(name: str) -> AbstractContextManager[None]:
    """Return the style of a figure; the fixed salt makes its SVG file reproducible."""
    return mpl.rc_context({**STYLE, "svg.hashsalt": name})


def _accuracy(title: str, conditions: Sequence[ConditionResults]) -> Figure:
    figure, axes = _axes(title)
    curve = conditions[0].condition.kind in (Kind.CAP, Kind.CONTINUATIONS)
    _points(axes, [(each.run, each.right) for each in conditions], "", "-o" if curve else "o")
    labels: dict[tuple[int, int], list[str]] = {}
    for each in conditions:
        at = (round(each.run.mean_tokens), round(100 * each.right.value))
        labels.setdefault(at, []).append(each.condition.name)
    for at, names in labels.items():
        near_the_axis = at[1] < LOW_PERCENT
        axes.annotate(
            "\n".join(names),
            at,
            xytext=(6, 6 if near_the_axis else -5),
            textcoords="offset points",
            fontsize=8,
            verticalalignment="bottom" if near_the_axis else "top",
        )
    return figure


def _parallel(findings: Findings) -> Figure:
    """Plot a line for each strategy and a point for each total of tokens."""
    lines: dict[str, list[Run]] = {
        "one chain": [each.run for each in findings.of_kind(Kind.CAP) if each.condition.value],
        "continuations": [each.run for each in findings.of_kind(Kind.CONTINUATIONS)],
    }
    for each in findings.voting:
        for strategy in (majority, best_of_n, any_right):
            run = strategy(each.run, each.condition.votes)
            lines.setdefault(run.name, []).append(run)
    for each in findings.parallel:
        lines.setdefault(" + ".join(each.condition.options), []).append(each.run)
    figure, axes = _axes("Accuracy against all thinking tokens of a question")
    for marker, (name, runs) in zip(cycle(MARKERS), lines.items(), strict=False):
        if runs := [run for run in runs if run.has_token_counts]:
            _points(axes, [(run, accuracy(run)) for run in runs], name, f"-{marker}")
    return figure


def _frontier(findings: Findings) -> Figure:
    """Plot every condition: a marker for each way to spend tokens."""
    groups: dict[str, list[Run]] = {}
    for each in findings.results:
        run = answered(each)
        name = " + ".join(each.condition.options) or _name_of_budget(each.condition)
        if run.samples and run.has_token_counts:
            groups.setdefault(name, []).append(run)
    figure, axes = _axes("Every condition, a coin between two, and a perfect router")
    for marker, (name, runs) in zip(cycle(MARKERS), groups.items(), strict=False):
        _points(axes, [(run, accuracy(run)) for run in runs], name, marker)
    return figure


def _name_of_budget(condition: Condition) -> str:
    if condition.votes > 1:
        return f"majority of {condition.votes}"
    return CURVE_NAMES[condition.kind] if condition.is_fixed else condition.name


def _reference_lines(frontier: Frontier) -> dict[str, Points]:
    """Return the lines of a coin between two conditions, and of perfect routers."""
    if not frontier.is_comparable:
        return {}
    return {"coin between two conditions": frontier.mixture, **frontier.router_lines}


def _add_lines(axes: Axes, lines: Mapping[str, Points]) -> None:
    """Draw lines within the limits of the points, level beyond their ends, and a legend."""
    limits = axes.get_xlim()
    for style, (name, points) in zip(LINES, lines.items(), strict=False):
        tokens, right = zip(*points, strict=True)
        end = max(limits[1], tokens[-1])
        axes.plot(
            [*tokens, end],
            [100 * share for share in [*right, right[-1]]],
            style,
            color="0.35",
            linewidth=1,
            label=name,
            zorder=1,
        )
    axes.set_xlim(limits)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        labels = [textwrap.fill(label.replace(":", ", "), LEGEND_WIDTH) for label in labels]
        axes.figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=7)


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel("mean thinking tokens")
    axes.set_ylabel("right, % (95% interval)")
    axes.set_ylim(0, 104)
    return figure, axes


def _points(axes: Axes, runs: Sequence[tuple[Run, Interval]], label: str, style: str) -> None:
    runs = sorted(runs, key=lambda each: each[0].mean_tokens)
    right = [100 * share.value for _, share in runs]
    errors = [
        [100 * (share.value - share.low) for _, share in runs],
        [100 * (share.high - share.value) for _, share in runs],
    ]
    tokens = [run.mean_tokens for run, _ in runs]
    axes.errorbar(tokens, right, yerr=errors, fmt=style, capsize=3, label=label or None)
