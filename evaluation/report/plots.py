"""Pictures of a run. Its own module, as it needs the extra `eval`."""

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from proctor.evaluation.conditions import Kind
from proctor.evaluation.report.findings import Findings, Measured, accuracy
from proctor.evaluation.report.sections import TITLES
from proctor.evaluation.statistics.delta import Interval
from proctor.evaluation.statistics.samples import Run
from proctor.evaluation.statistics.strategies import any_right, best_of_n, majority

SIZE = (6.4, 4.0)
DOTS = 160
LOW = 12
"""Percent; a point below that has its label above it."""

WITHOUT_DATE = {"svg": {"Date": None}, "png": {}}
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
    "svg.fonttype": "none",  # its words can be read and searched
}
MARKS = "osD^vP*X"


def draw(findings: Findings) -> dict[str, Figure]:
    """A picture for each kind of setting, and one of the ways to spend a budget, by name."""
    with mpl.rc_context(STYLE):
        drawn = {
            kind.value: _accuracy(TITLES[kind], findings.of_kind(kind))
            for kind in Kind
            if findings.of_kind(kind)
        }
        if findings.voting:
            drawn["parallel"] = _parallel(findings)
    return drawn


def to_svg(figure: Figure, name: str) -> str:
    """The picture as the text of an `<svg>` element, whose ids are like no other name's."""
    written = io.StringIO()
    with _style(name):
        figure.savefig(written, format="svg", metadata=WITHOUT_DATE["svg"])
    text = written.getvalue()
    return text[text.index("<svg") :]


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write the picture as PNG and as SVG."""
    with _style(name):
        for form, metadata in WITHOUT_DATE.items():
            figure.savefig(folder / f"{name}.{form}", dpi=DOTS, metadata=metadata)


def _style(name: str) -> AbstractContextManager[None]:
    """The same picture gives the same file."""
    return mpl.rc_context({**STYLE, "svg.hashsalt": name})


def _accuracy(title: str, settings: Sequence[Measured]) -> Figure:
    figure, axes = _axes(title)
    curve = settings[0].setting.kind in (Kind.CAP, Kind.CONTINUATIONS)
    _points(axes, [(each.run, each.right) for each in settings], "", "-o" if curve else "o")
    labels: dict[tuple[int, int], list[str]] = {}
    for each in settings:
        at = (round(each.run.mean_tokens), round(100 * each.right.value))
        labels.setdefault(at, []).append(each.setting.name)
    for at, names in labels.items():
        near_the_axis = at[1] < LOW
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
    """A line for each way, a point for each total."""
    lines: dict[str, list[Run]] = {
        "one chain": [each.run for each in findings.of_kind(Kind.CAP) if each.setting.value],
        "continuations": [each.run for each in findings.of_kind(Kind.CONTINUATIONS)],
    }
    for each in findings.voting:
        for strategy in (majority, best_of_n, any_right):
            run = strategy(each.run, each.setting.votes)
            lines.setdefault(run.name, []).append(run)
    figure, axes = _axes("Accuracy against all thinking tokens of a question")
    for mark, (way, runs) in zip(MARKS, lines.items(), strict=False):
        if runs:
            _points(axes, [(run, accuracy(run)) for run in runs], way, f"-{mark}")
    axes.legend(fontsize=8)
    return figure


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel("mean thinking tokens")
    axes.set_ylabel("right, % (95% interval)")
    axes.set_ylim(0, 104)
    return figure, axes


def _points(axes: Axes, runs: Sequence[tuple[Run, Interval]], label: str, form: str) -> None:
    runs = sorted(runs, key=lambda each: each[0].mean_tokens)
    right = [100 * found.value for _, found in runs]
    spans = [
        [100 * (found.value - found.low) for _, found in runs],
        [100 * (found.high - found.value) for _, found in runs],
    ]
    tokens = [run.mean_tokens for run, _ in runs]
    axes.errorbar(tokens, right, yerr=spans, fmt=form, capsize=3, label=label)
