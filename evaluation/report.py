"""What a run says, as Markdown."""

from collections.abc import Iterable, Sequence

from evaluation.asking import Row, Setting
from evaluation.curve import control, flattens_at, performance, scaling
from evaluation.delta import STEP_TOKENS, Interval, delta, mean_interval, slope
from evaluation.price import cost_per_correct, crossover
from evaluation.samples import Run, Sample, shared_questions


def to_runs(rows: Iterable[Row], settings: Sequence[Setting]) -> list[Run]:
    """The rows of each setting that has some, in the settings' order."""
    rows = [*rows]
    runs = [Run(setting.name, tuple(map(_sample, _of(rows, setting)))) for setting in settings]
    return [run for run in runs if run.samples]


def to_markdown(rows: Sequence[Row], settings: Sequence[Setting]) -> str:
    """A table of the settings, and what they say together.

    The first setting is the one that the others are compared with.

    Raises:
        ValueError: if there are no rows.
    """
    runs = to_runs(rows, settings)
    if not runs:
        raise ValueError("there are no samples to report")
    by_name = {setting.name: setting for setting in settings}
    lines = [
        f"| setting | samples | right | thinking | within | against {runs[0].name} | verdict "
        "| tokens a right answer | cost of one |",
        "|---|--:|--:|--:|--:|--:|---|--:|--:|",
    ]
    for run in runs:
        of_run = _of(rows, by_name[run.name])
        lines.append(_line(run, of_run, by_name[run.name], runs[0]))
    return "\n".join([*lines, "", *_together(runs)]) + "\n"


def _line(run: Run, rows: Sequence[Row], setting: Setting, first: Run) -> str:
    right = mean_interval(run.by_question(run.questions, "correct"))
    most = float("inf") if setting.most is None else setting.most
    within = control([row.tokens for row in rows], setting.least, most)
    gain, verdict = "", ""
    if run is not first:
        found = delta(run, first)
        gain, verdict = _points(found), found.verdict.value
    costs = [row.cost for row in rows if row.cost is not None]
    generated = sum(row.generated for row in rows) / len(rows)
    tokens = cost_per_correct(generated, run.accuracy)
    cost = "-"
    if len(costs) == len(rows):
        cost = f"{cost_per_correct(sum(costs) / len(costs), run.accuracy):.3g}"
    return (
        f"| {run.name} | {len(rows)} | {_percent(right)} | {run.mean_tokens:.0f} | {within:.0%} "
        f"| {gain} | {verdict} | {tokens:.0f} | {cost} |"
    )


def _together(runs: Sequence[Run]) -> list[str]:
    accuracies = [run.accuracy for run in runs]
    told = [
        f"- Performance: {performance(accuracies):.1%}.",
        f"- None of the later settings beats {runs[flattens_at(accuracies)].name}.",
    ]
    points = [(run.mean_tokens, run.accuracy) for run in runs if run.mean_tokens > 0]
    if len({tokens for tokens, _ in points}) > 1:
        told.append(
            f"- Scaling: {scaling(points):+.1f} percentage points per doubling of thinking."
        )
    if len(runs) > 1:
        found = slope(runs)
        told.append(f"- Slope: {_points(found)} points per {STEP_TOKENS} more thinking tokens.")
        first = crossover(runs[1:], runs[0])
        surely = "none of them" if first is None else first.name
        told.append(f"- Surely better than {runs[0].name}: {surely}, to begin with.")
        told.append(f"- Questions that all settings have: {len(shared_questions(runs))}.")
    return told


def _of(rows: Sequence[Row], setting: Setting) -> list[Row]:
    return [row for row in rows if row.setting == setting.name]


def _sample(row: Row) -> Sample:
    return Sample(row.question, row.tokens, row.generated, row.score)


def _percent(found: Interval) -> str:
    return f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"


def _points(found: Interval) -> str:
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
